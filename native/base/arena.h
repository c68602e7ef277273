/* One block of memory, divided into aligned arrays.
 *
 * A stage lists its arrays once, in X_init(). With base NULL the list only measures: every array is NULL and
 * `used` is the size that the caller has to provide. With base set, the same list places the arrays. Nothing
 * is freed here: the caller owns the block.
 */
#ifndef APMPI_BASE_ARENA_H
#define APMPI_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { ARENA_ALIGN = 64 }; /* bytes: the cache line of every Pi, and no vector register is wider */

typedef struct {
    unsigned char *base; /* aligned to ARENA_ALIGN; NULL: measure only */
    size_t used;         /* bytes, a multiple of ARENA_ALIGN */
} arena_t;

static inline size_t arena_round(size_t bytes)
{
    return (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
}

/* `bytes` of memory aligned to ARENA_ALIGN, not initialised; NULL while measuring. */
static inline void *arena_take(arena_t *arena, size_t bytes)
{
    void *at = arena->base ? arena->base + arena->used : NULL;
    arena->used += arena_round(bytes);
    return at;
}

/* The same for `count` floats. */
static inline float *arena_floats(arena_t *arena, size_t count)
{
    return arena_take(arena, count * sizeof(float));
}

#endif
