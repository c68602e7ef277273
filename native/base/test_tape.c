/* tape.h: recorded values are restored within the stated rounding; values outside of their range are
 * counted, and numbers never produce one; different lists have different layouts. */
#include "base/tape.h"

#include <float.h>
#include <string.h>

#include "base/test_support.h"

enum { COUNT = 999 };
static const float MOST = 1e15f;

typedef struct {
    float many[COUNT], one;
    int number;
} learned_t;

static void keep(learned_t *learned, tape_t *tape)
{
    tape_floats(tape, learned->many, COUNT, -MOST, MOST);
    tape_float(tape, &learned->one, 0.0f, 1.0f);
    tape_int(tape, &learned->number, -1, 100);
}

/* The same list with unlimited ranges, to forge a record. */
static void keep_anything(learned_t *learned, tape_t *tape)
{
    tape_floats(tape, learned->many, COUNT, -FLT_MAX, FLT_MAX);
    tape_float(tape, &learned->one, -FLT_MAX, FLT_MAX);
    tape_int(tape, &learned->number, INT32_MIN, INT32_MAX);
}

static tape_t run(learned_t *learned, tape_mode_t mode, unsigned char *bytes)
{
    tape_t tape = {mode, bytes, 0, 0, 0};
    keep(learned, &tape);
    return tape;
}

static void comes_back(void)
{
    learned_t learned = {.one = 0.3333333f, .number = -1}, back = {{0}, 0.0f, 0};
    for (int i = 0; i < COUNT; i++) /* 24 decades, both signs */
        learned.many[i] = test_random() * powf(10.0f, (float)(i % 24) - 12.0f);
    learned.many[0] = 0.0f;
    const tape_t measured = run(&learned, TAPE_MEASURE, NULL);
    unsigned char *bytes = malloc(measured.used + 1), *unaligned = bytes + 1;
    const tape_t recorded = run(&learned, TAPE_RECORD, unaligned);
    const tape_t checked = run(&back, TAPE_CHECK, unaligned);
    const int untouched = back.number == 0;
    run(&back, TAPE_PLAY, unaligned);
    double worst = 0.0;
    for (int i = 1; i < COUNT; i++)
        test_worst(&worst, fabs((double)back.many[i] / (double)learned.many[i] - 1.0));
    CHECK(worst <= 0x1p-8 && back.many[0] == 0.0f,
          "arrays: worst relative error 2^%.2f, 2^-9 of the next power of two is promised", log2(worst));
    CHECK(back.one == learned.one && back.number == learned.number,
          "a float and a whole number come back exactly");
    CHECK(!checked.odd && untouched, "checking finds nothing odd and changes nothing");
    CHECK(measured.used == recorded.used && measured.layout == checked.layout, "%zu bytes in every mode",
          measured.used);
    free(bytes);
}

static void counts_odd_values(void)
{
    unsigned char bytes[2 * COUNT + 8];
    static const struct {
        float many, one;
        int number;
    } cases[] = {{NAN, 0.5f, 0},   {INFINITY, 0.5f, 0}, {1e30f, 0.5f, 0},
                 {0.0f, NAN, 0},   {0.0f, -0.1f, 0},    {0.0f, 1.1f, 0},
                 {0.0f, 0.5f, -2}, {0.0f, 0.5f, 101},   {0.0f, 0.5f, INT32_MIN}};
    int found = 0;
    const int count = (int)(sizeof cases / sizeof *cases);
    for (int i = 0; i < count; i++) {
        learned_t learned = {.one = cases[i].one, .number = cases[i].number};
        learned.many[COUNT / 2] = cases[i].many;
        tape_t forged = {TAPE_RECORD, bytes, 0, 0, 0};
        keep_anything(&learned, &forged);
        found += run(&learned, TAPE_CHECK, bytes).odd == 1;
    }
    CHECK(found == count, "%d of %d odd values found", found, count);
}

static void records_no_odd_number(void)
{
    unsigned char bytes[2 * COUNT + 8];
    learned_t learned = {.one = 1e9f, .number = INT32_MIN}, back;
    for (int i = 0; i < COUNT; i++)
        learned.many[i] = test_random() * 3.0f * MOST;
    run(&learned, TAPE_RECORD, bytes);
    const int odd = run(&back, TAPE_CHECK, bytes).odd;
    run(&back, TAPE_PLAY, bytes);
    const int at_the_ends = back.one == 1.0f && back.number == -1;
    CHECK(odd == 0 && at_the_ends, "numbers out of range: recorded as the ends, %d odd", odd);
    int found = 0;
    const float no_numbers[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 4; i++) {
        learned.many[i] = no_numbers[i];
        run(&learned, TAPE_RECORD, bytes);
        found += run(&back, TAPE_CHECK, bytes).odd == i + 1;
    }
    const uint32_t all_ones = 0x7fffffffu; /* a NaN that rounding alone would turn into -0 */
    memcpy(learned.many + 4, &all_ones, sizeof all_ones);
    learned.one = NAN;
    run(&learned, TAPE_RECORD, bytes);
    CHECK(found == 4 && run(&back, TAPE_CHECK, bytes).odd == 6, "an infinity or a NaN stays one");
}

static void lists_differ(void)
{
    float values[3];
    tape_t one = {TAPE_MEASURE, NULL, 0, 0, 0}, other = one;
    tape_floats(&one, values, 2, 0.0f, 1.0f);
    tape_floats(&one, values, 3, 0.0f, 1.0f);
    tape_floats(&other, values, 3, 0.0f, 1.0f);
    tape_floats(&other, values, 2, 0.0f, 1.0f);
    CHECK(one.used == other.used && one.layout != other.layout,
          "lists of one length but another order differ");
}

int main(void)
{
    comes_back();
    counts_odd_values();
    records_no_odd_number();
    lists_differ();
    CHECK(tape_crc((const unsigned char *)"123456789", 9) == 0xcbf43926u, "CRC-32's check value");
    return test_failures != 0;
}
