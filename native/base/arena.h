/* One block of memory cut into aligned arrays: a stage lists its arrays once, and the same list serves to
 * measure (base NULL) and to place. Nothing is freed; the caller owns the block. */
#ifndef APMPI_BASE_ARENA_H
#define APMPI_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { ARENA_ALIGN = 64 }; /* a cache line of every Pi, and any vector register */

typedef struct {
    unsigned char *base; /* NULL: only measure */
    size_t used;
} arena_t;

static inline size_t arena_round(size_t bytes)
{
    return (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
}

/* `bytes` of memory aligned to ARENA_ALIGN; NULL while measuring. */
static inline void *arena_take(arena_t *arena, size_t bytes)
{
    void *at = arena->base ? arena->base + arena->used : NULL;
    arena->used += arena_round(bytes);
    return at;
}

static inline float *arena_floats(arena_t *arena, size_t count)
{
    return arena_take(arena, count * sizeof(float));
}

#endif
