/* kernels.h: every variant against the scalar one, on adverse buffers: many lengths, every offset, memory
 * that ends with the array (for a sanitizer), silence, full scale, denormals. */
#include "base/test_support.h"
#include "kernels/hermitian.h"
#include "kernels/kernel_cases.h"

enum { LENGTHS = 13, OFFSETS = 4 };
/* in vectors of KERNEL_LANES */
static const int lengths[LENGTHS] = {0, 1, 2, 3, 4, 5, 6, 7, 21, 40, 41, 81, 121};
typedef enum { NOISE, SILENCE, FULL_SCALE, DENORMALS, SOUNDS } sound_t;

static float value_of(sound_t sound)
{
    const float random = test_random();
    switch (sound) {
    case SILENCE:
        return 0.0f;
    case FULL_SCALE:
        return random < 0.0f ? -1.0f : 1.0f;
    case DENORMALS:
        return random * 1e-39f;
    default:
        return random;
    }
}

/* `offset` floats, then `count` more, with which the memory ends. */
static float *buffer(int count, int offset, sound_t sound)
{
    float *block = malloc(sizeof(float) * (size_t)(count + offset) + 1); /* never of size 0 */
    for (int i = 0; i < count + offset; i++)
        block[i] = value_of(sound);
    return block;
}

/* Two roundings of the same operation differ by at most one unit in the last place, 2^-23 of the largest
 * number. */
static void compare(const kernels_t *variant, const kernel_case_t *test)
{
    double worst = 0.0;
    for (int l = 0; l < LENGTHS; l++)
        for (int offset = 0; offset < OFFSETS; offset++)
            for (sound_t sound = NOISE; sound < SOUNDS; sound++) {
                const int n = KERNEL_LANES * lengths[l], floats = n * CASE_ROWS;
                float *in[CASE_INPUTS], *wanted[CASE_OUTPUTS], *got[CASE_OUTPUTS];
                const float *in_at[CASE_INPUTS];
                float *wanted_at[CASE_OUTPUTS], *got_at[CASE_OUTPUTS];
                for (int i = 0; i < CASE_INPUTS; i++) {
                    in[i] = buffer(floats, offset, sound);
                    in_at[i] = in[i] + offset;
                }
                for (int o = 0; o < CASE_OUTPUTS; o++) {
                    wanted[o] = buffer(floats, offset, sound);
                    got[o] = buffer(floats, offset, sound);
                    memcpy(got[o], wanted[o], sizeof(float) * (size_t)(floats + offset));
                    wanted_at[o] = wanted[o] + offset;
                    got_at[o] = got[o] + offset;
                }
                test->run(&kernels_scalar, n, in_at, wanted_at);
                test->run(variant, n, in_at, got_at);
                for (int o = 0; o < CASE_OUTPUTS; o++)
                    for (int i = -offset; i < floats; i++)
                        test_worst(&worst, fabs((double)got_at[o][i] - (double)wanted_at[o][i]));
                for (int i = 0; i < CASE_INPUTS; i++)
                    free(in[i]);
                for (int o = 0; o < CASE_OUTPUTS; o++)
                    free(wanted[o]), free(got[o]);
            }
    const double allowed = test->operations * test->magnitude * 0x1p-23;
    CHECK(worst <= allowed, "%-6s %-17s differs from scalar by up to %.1e (allowed %.1e)", variant->name,
          test->name, worst, allowed);
}

static void compare_fft(const kernels_t *variant, int size)
{
    arena_t measure = {0};
    fft_t fft;
    fft_init(&fft, size, &measure);
    arena_t arena = {test_memory(measure.used), 0};
    fft_init(&fft, size, &arena);
    const int bins = size / 2 + 1;
    double there = 0.0, back = 0.0;
    for (int offset = 0; offset < OFFSETS; offset++)
        for (sound_t sound = NOISE; sound < SOUNDS; sound++) {
            float *x = buffer(size, offset, sound), *spectra[4], *y[2];
            for (int i = 0; i < 4; i++)
                spectra[i] = buffer(bins, offset, sound);
            for (int i = 0; i < 2; i++)
                y[i] = buffer(size, offset, sound);
            kernels_scalar.fft_forward(&fft, x + offset, spectra[0] + offset, spectra[1] + offset);
            variant->fft_forward(&fft, x + offset, spectra[2] + offset, spectra[3] + offset);
            kernels_scalar.fft_inverse(&fft, spectra[0] + offset, spectra[1] + offset, y[0] + offset);
            variant->fft_inverse(&fft, spectra[0] + offset, spectra[1] + offset, y[1] + offset);
            for (int k = offset; k < offset + bins; k++) {
                test_worst(&there, fabs((double)spectra[0][k] - (double)spectra[2][k]));
                test_worst(&there, fabs((double)spectra[1][k] - (double)spectra[3][k]));
            }
            for (int i = offset; i < offset + size; i++)
                test_worst(&back, fabs((double)y[0][i] - (double)y[1][i]));
            free(x);
            for (int i = 0; i < 4; i++)
                free(spectra[i]);
            for (int i = 0; i < 2; i++)
                free(y[i]);
        }
    /* Full scale gives spectra of sqrt(size) on average and of 5 times that at most, after about 10
     * roundings. */
    const double allowed = 10.0 * 5.0 * sqrt((double)size) * 0x1p-23;
    CHECK(there <= allowed && back <= 1e-6,
          "%-6s fft %4d           differs from scalar by up to %.1e there (allowed %.1e), %.1e back",
          variant->name, size, there, allowed, back);
    free(arena.base);
}

/* Layers of many shapes against sums of products in double; the integer sums of all variants are equal. */
static void check_dense(const kernels_t *variant)
{
    static const int shapes[][2] = {
        {1, 1}, {3, 15}, {4, 16}, {5, 17}, {7, 100}, {96, 130}, {2, DENSE_MAX_INPUTS}};
    double worst = 0.0;
    for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int outputs = shapes[s][0], inputs = dense_stride(shapes[s][1]);
        int8_t *weight = malloc((size_t)(outputs * inputs));
        int8_t *x = malloc((size_t)inputs);
        float *scale = buffer(outputs, 0, NOISE), *y = buffer(outputs, 0, NOISE),
              *before = buffer(outputs, 0, NOISE);
        memcpy(before, y, sizeof(float) * (size_t)outputs);
        for (int extreme = 0; extreme < 2; extreme++) {
            for (int i = 0; i < outputs * inputs; i++)
                weight[i] = (int8_t)(extreme ? -127 : lrintf(127.0f * test_random()));
            for (int i = 0; i < inputs; i++)
                x[i] = (int8_t)(extreme ? -127 : lrintf(127.0f * test_random()));
            memcpy(y, before, sizeof(float) * (size_t)outputs);
            variant->dense(outputs, inputs, weight, scale, x, 1e-4f, y);
            for (int o = 0; o < outputs; o++) {
                double sum = 0.0;
                for (int i = 0; i < inputs; i++)
                    sum += (double)weight[o * inputs + i] * (double)x[i];
                const double wanted = (double)before[o] + 1e-4 * (double)scale[o] * sum;
                test_worst(&worst, fabs((double)y[o] - wanted) / (1.0 + fabs(1e-4 * (double)scale[o] * sum)));
            }
        }
        free(weight), free(x), free(scale), free(y), free(before);
    }
    /* the integer sum becomes a float, two products, one addition */
    CHECK(worst <= 4.0 * 0x1p-24, "%-6s dense             relative error up to %.1e", variant->name, worst);
}

/* dense_add: quantised inputs of any scale give the layer's float sums. */
static void check_dense_add(void)
{
    enum { OUTPUTS = 9, INPUTS = 37 };
    static const float scales[] = {1e-6f, 1.0f, 1e6f};
    int8_t weight[OUTPUTS * 48] = {0};
    float scale[OUTPUTS], x[INPUTS], y[OUTPUTS];
    int8_t scratch[48];
    double worst = 0.0;
    for (int s = 0; s < 3; s++) {
        for (int o = 0; o < OUTPUTS; o++) {
            scale[o] = 1.0f / 127.0f;
            y[o] = 0.0f;
            for (int i = 0; i < INPUTS; i++)
                weight[o * dense_stride(INPUTS) + i] = (int8_t)lrintf(127.0f * test_random());
        }
        for (int i = 0; i < INPUTS; i++)
            x[i] = i ? scales[s] * test_random() : scales[s];
        dense_add(OUTPUTS, INPUTS, weight, scale, x, scratch, y);
        for (int o = 0; o < OUTPUTS; o++) {
            double wanted = 0.0;
            for (int i = 0; i < INPUTS; i++)
                wanted += (double)weight[o * dense_stride(INPUTS) + i] / 127.0 * (double)x[i];
            test_worst(&worst, fabs((double)y[o] - wanted) / (double)scales[s]);
        }
    }
    /* half a step of 1/127 for each input at worst, all in one direction */
    CHECK(worst <= INPUTS * 0.5 / 127.0, "dense_add: off by up to %.1e of the largest input", worst);
    memset(x, 0, sizeof x);
    y[0] = 3.0f;
    dense_add(1, INPUTS, weight, scale, x, scratch, y);
    CHECK(y[0] == 3.0f, "dense_add: silence leaves the bias as it is");
}

/* |matrix * y - x| of one bin over the sum of the magnitudes that it is made of, in double. */
static double backward_error(int n, int rows, int k, const float *matrix, const float *const solution[2],
                             const float *const right[2])
{
    double worst = 0.0;
    for (int i = 0; i < rows; i++) {
        double re = -(double)right[0][i * n + k], im = -(double)right[1][i * n + k], size = hypot(re, im);
        for (int j = 0; j < rows; j++) {
            const float *element = matrix + hermitian_plane(i > j ? i : j, i > j ? j : i) * n + k;
            const double ar = (double)element[0], ai = i < j ? -(double)element[n] : (double)element[n],
                         yr = (double)solution[0][j * n + k], yi = (double)solution[1][j * n + k];
            re += ar * yr - ai * yi;
            im += ar * yi + ai * yr;
            size += hypot(ar, ai) * hypot(yr, yi);
        }
        test_worst(&worst, hypot(re, im) / size);
    }
    return worst;
}

/* Matrices that are averages of a few random vectors, with 0.001 of the diagonal added, are solved to within
 * the rounding error of a factorisation, 3 rows^2 roundings (N. Higham, "Accuracy and Stability of Numerical
 * Algorithms", 2002, theorem 10.4, twice that for complex numbers). */
static void check_hermitian(const kernels_t *variant, int rows)
{
    const int n = 5 * KERNEL_LANES, floats = n * rows, average_of = rows / 2 + 1;
    float *matrix = test_memory(sizeof(float) * (size_t)(n * hermitian_planes(rows)));
    float *rate = buffer(n, 0, NOISE), *x[2] = {buffer(floats, 0, NOISE), buffer(floats, 0, NOISE)};
    double worst = 0.0;
    for (int v = 0; v < average_of; v++) {
        float *re = buffer(floats, 0, NOISE), *im = buffer(floats, 0, NOISE);
        for (int k = 0; k < n; k++)
            rate[k] = 1.0f / (float)(v + 1);
        variant->hermitian_average(n, rows, re, im, rate, matrix);
        free(re), free(im);
    }
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < n; k++)
            matrix[hermitian_plane(i, i) * n + k] *= 1.001f;
    float *y[2] = {buffer(floats, 0, NOISE), buffer(floats, 0, NOISE)};
    for (int part = 0; part < 2; part++)
        memcpy(y[part], x[part], sizeof(float) * (size_t)floats);
    variant->hermitian_solve(n, rows, matrix, y[0], y[1]);
    const float *const solution[2] = {y[0], y[1]}, *const right[2] = {x[0], x[1]};
    for (int k = 0; k < n; k++)
        test_worst(&worst, backward_error(n, rows, k, matrix, solution, right));
    const double allowed = 2.0 * 3.0 * rows * rows * 0x1p-24;
    CHECK(worst <= allowed, "%-6s hermitian_solve    %2d rows: backward error up to %.1e (allowed %.1e)",
          variant->name, rows, worst, allowed);
    free(matrix), free(rate), free(x[0]), free(x[1]), free(y[0]), free(y[1]);
}

int main(void)
{
    printf("stages use %s\n", kernels()->name);
    for (const kernels_t *const *variant = kernels_here(); *variant; variant++) {
        for (int i = 0; i < KERNEL_CASES; i++)
            compare(*variant, &kernel_cases[i]);
        for (int size = 160; size <= 960; size += 160)
            if (size != 800)
                compare_fft(*variant, size);
        for (int rows = 1; rows <= HERMITIAN_MAX_ROWS; rows *= 2)
            check_hermitian(*variant, rows);
        check_dense(*variant);
    }
    check_dense_add();
    return test_failures != 0;
}
