/* Runs the linear canceller alone, one mark before and after each block, for its cost against the tail:
 *
 *   canceller HOP_SAMPLES PARTITIONS BLOCKS */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "aec/aec.h"
#include "insncount.h"

typedef struct {
    fft_t fft;
    reference_t reference;
    aec_t aec;
    float *far, *echo, *error;
} rig_t;

static void place(rig_t *rig, int hop, int partitions, arena_t *arena)
{
    fft_init(&rig->fft, 2 * hop, arena);
    reference_init(&rig->reference, hop, 1, partitions, arena);
    aec_init(&rig->aec, hop, 1, partitions, arena);
    rig->far = arena_floats(arena, (size_t)hop);
    rig->echo = arena_floats(arena, (size_t)hop);
    rig->error = arena_floats(arena, (size_t)hop);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    const int hop = atoi(argv[1]), partitions = atoi(argv[2]), blocks = atoi(argv[3]);
    rig_t rig;
    arena_t arena = {0};
    place(&rig, hop, partitions, &arena);
    arena = (arena_t){aligned_alloc(ARENA_ALIGN, arena.used), 0};
    place(&rig, hop, partitions, &arena);
    unsigned random = 1;
    for (int b = 0; b < blocks; b++) {
        for (int i = 0; i < hop; i++) {
            random = random * 1664525u + 1013904223u; /* Numerical Recipes, sec. 7.1 */
            rig.far[i] = (float)(int)random / 2147483648.0f;
        }
        syscall(MARK_SYSCALL, 0);
        reference_push(&rig.reference, &rig.fft, rig.far, NULL);
        const aec_block_t block = {&rig.reference, 0, &rig.fft, rig.far, rig.echo, rig.error};
        aec_predict(&rig.aec, &block);
        aec_learn(&rig.aec, &block, 0.0f);
        syscall(MARK_SYSCALL, 1);
    }
    printf("%g\n", (double)rig.error[0]);
    return 0;
}
