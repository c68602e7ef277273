/* The saved state of apm.h: learned values of all stages as bytes, a header and a tape (tape.h).
 *
 * Everything learned passes through keep(). What two references have beyond one is at the end of the list, so
 * that a chain of one or of two restores either state. Left out is the leakage of residual.h: a card may
 * start a sample earlier than it did, and until that is learned, "all of the echo leaks" is the safe
 * assumption.
 */
#include <stddef.h>
#include <string.h>

#include "apm/internal.h"
#include "base/tape.h"

static void keep(apm_t *apm, int references, tape_t *tape)
{
    far_keep(&apm->far, tape);
    for (int c = 0; c < apm->channels; c++)
        channel_keep(&apm->channel[c], tape);
    agc_keep(&apm->agc, tape);
    for (int c = 0; c < apm->channels && references > 1; c++)
        channel_keep_side(&apm->channel[c], tape);
}

/* Sets what depends on several values, after all are restored. */
static void resume(apm_t *apm)
{
    int placed = 1;
    for (int c = 0; c < apm->channels; c++)
        placed &= channel_resume(&apm->channel[c], apm->far.placed_blocks);
    far_resume(&apm->far, placed);
}

enum { STATE_VERSION = 2 }; /* rises when a value changes its meaning but not its place in the list */

/* Start of a state; the tape follows. */
typedef struct {
    char magic[8];
    uint32_t crc; /* of all bytes that follow it */
    uint32_t layout;
    int32_t rate_hz, channels;
} header_t;

static const char STATE_MAGIC[8] = "apmpi\r\n\x1a"; /* as PNG's: a conversion of text files would change it */

static tape_t measured_tape(apm_t *apm, int references)
{
    tape_t tape = {TAPE_MEASURE, NULL, 0, 2166136261u ^ STATE_VERSION, 0}; /* FNV's offset basis */
    keep(apm, references, &tape);
    return tape;
}

/* Runs the list for `references` over the bytes behind the header. Returns the number of values out of range.
 */
static int run_tape(apm_t *apm, int references, tape_mode_t mode, unsigned char *state)
{
    tape_t tape = {mode, state + sizeof(header_t), 0, 0, 0};
    keep(apm, references, &tape);
    return tape.odd;
}

size_t apm_state_size(apm_t *apm) { return sizeof(header_t) + measured_tape(apm, apm->far.references).used; }

void apm_save(apm_t *apm, unsigned char *state)
{
    const int references = apm->far.references;
    header_t header = {{0}, 0, measured_tape(apm, references).layout, apm->workspace.rate_hz, apm->channels};
    memcpy(header.magic, STATE_MAGIC, sizeof header.magic);
    memcpy(state, &header, sizeof header);
    run_tape(apm, references, TAPE_RECORD, state);
}

static uint32_t crc_of(const unsigned char *state, size_t bytes)
{
    const size_t skipped = offsetof(header_t, layout);
    return tape_crc(state + skipped, bytes - skipped);
}

void apm_seal(unsigned char *state, size_t bytes)
{
    const uint32_t crc = crc_of(state, bytes);
    memcpy(state + offsetof(header_t, crc), &crc, sizeof crc);
}

/* Copies the header. Returns 0 if the bytes do not begin with one. */
static int read_header(const unsigned char *state, size_t bytes, header_t *header)
{
    if (bytes < sizeof *header)
        return 0;
    memcpy(header, state, sizeof *header);
    return memcmp(header->magic, STATE_MAGIC, sizeof header->magic) == 0;
}

void apm_state_shape(const unsigned char *state, size_t bytes, int *rate_hz, int *channels)
{
    header_t header;
    const int known = read_header(state, bytes, &header);
    *rate_hz = known ? header.rate_hz : 0;
    *channels = known ? header.channels : 0;
}

/* References of the chain that saved a state; 0: it has another list of values. */
static int references_of(apm_t *apm, const header_t *header, size_t bytes)
{
    int references = APM_MAX_REFERENCES;
    for (; references > 0; references--) {
        const tape_t tape = measured_tape(apm, references);
        if (header->layout == tape.layout && bytes == sizeof *header + tape.used)
            break;
    }
    return references;
}

apm_state_t apm_restore(apm_t *apm, const unsigned char *state, size_t bytes)
{
    header_t header;
    if (!read_header(state, bytes, &header))
        return APM_STATE_FOREIGN;
    if (crc_of(state, bytes) != header.crc)
        return APM_STATE_DAMAGED;
    if (header.rate_hz != apm->workspace.rate_hz || header.channels != apm->channels)
        return APM_STATE_SHAPE;
    const int saved = references_of(apm, &header, bytes);
    if (saved == 0)
        return APM_STATE_LAYOUT;
    const int references = saved < apm->far.references ? saved : apm->far.references;
    unsigned char *read_only = (unsigned char *)state; /* neither mode writes there */
    if (run_tape(apm, references, TAPE_CHECK, read_only))
        return APM_STATE_ODD;
    run_tape(apm, references, TAPE_PLAY, read_only);
    resume(apm);
    return APM_STATE_GOOD;
}
