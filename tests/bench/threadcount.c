/* A plugin for qemu-user that counts the instructions of each thread of a program, by address, between two
 * marks (insncount.h) that the program sets itself.
 *
 *   qemu-x86_64 -plugin libthreadcount.so,out=FILE program
 *
 * At the second mark FILE gets a line "tid address instructions" for each block of code that a thread has
 * executed since the first, and a line "tid calls instructions" with the word "calls" for its system calls. A
 * block is counted as a whole when it is entered. */
#include "qemu_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "insncount.h"

enum { THREADS_MAX = 32 };
typedef struct block {
    uint64_t address, length;
    uint64_t entered[THREADS_MAX];
    struct block *next; /* never freed, as QEMU may keep its translation */
} block_t;

static block_t *blocks;
static int tids[THREADS_MAX];
static uint64_t system_calls[THREADS_MAX];
static FILE *out;
static int counting;

static void enter(unsigned cpu, void *data)
{
    block_t *block = data;
    if (cpu >= THREADS_MAX)
        return;
    block->entered[cpu]++;
    if (tids[cpu] == 0)
        tids[cpu] = gettid();
}

static void translate(plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    block_t *block = calloc(1, sizeof *block);
    block->address = qemu_plugin_tb_vaddr(tb);
    block->length = qemu_plugin_tb_n_insns(tb);
    block->next = blocks; /* QEMU translates one block at a time */
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, enter, 0, block);
}

static void begin(void)
{
    memset(system_calls, 0, sizeof system_calls);
    for (block_t *block = blocks; block; block = block->next)
        memset(block->entered, 0, sizeof block->entered);
}

static void end(void)
{
    for (int cpu = 0; cpu < THREADS_MAX; cpu++) {
        for (const block_t *block = blocks; block; block = block->next)
            if (block->entered[cpu])
                fprintf(out, "%d %llx %llu\n", tids[cpu], (unsigned long long)block->address,
                        (unsigned long long)(block->entered[cpu] * block->length));
        if (system_calls[cpu])
            fprintf(out, "%d calls %llu\n", tids[cpu], (unsigned long long)system_calls[cpu]);
    }
    fclose(out);
}

static void system_call(plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (cpu < THREADS_MAX)
        system_calls[cpu]++;
    if (number != MARK_SYSCALL)
        return;
    if (counting++ == 0)
        begin();
    else
        end();
}

EXPORT int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
