/* Preloaded into a program (LD_PRELOAD), counts its calls of the C library's allocator. glibc only. */
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static unsigned long count;

unsigned long allocations(void) { return count; }

void *malloc(size_t bytes)
{
    count++;
    return __libc_malloc(bytes);
}

void *calloc(size_t items, size_t bytes)
{
    count++;
    return __libc_calloc(items, bytes);
}

void *realloc(void *old, size_t bytes)
{
    count++;
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    count++;
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    count++;
    *memory = __libc_memalign(alignment, bytes);
    return *memory == NULL ? 12 : 0; /* ENOMEM */
}
