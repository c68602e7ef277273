/* A plugin for qemu-user that counts the instructions of each thread of a program, by address, between two
 * marks (insncount.h) that the program sets itself.
 *
 *   qemu-x86_64 -plugin libthreadcount.so,out=FILE,chain=NAME,card=NAME program
 *
 * FILE gets these lines for each thread, at the second mark but for the first:
 *
 *   tid frame chain rest   at each poll() between the marks: instructions since the one before
 *   tid block address n    instructions of a block of code; a block is counted as a whole when it is entered
 *   tid calls n            system calls
 *
 * Each NAME is part of the path of an object: the signal chain's, and the simulated card's, whose work is not
 * counted at all. What the C library does belongs to the object that has called it. */
#include "qemu_plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "insncount.h"

enum { THREADS_MAX = 32 };
typedef enum { REST, CHAIN, CARD, C_LIBRARY, OBJECTS } object_t;
static const char *const C_LIBRARY_PATHS[] = {"libc.so", "libm.so", "ld-linux", "[vdso]"};

typedef struct block {
    uint64_t address, length;
    object_t object;
    uint64_t entered[THREADS_MAX];
    struct block *next; /* never freed, as QEMU may keep its translation */
} block_t;

typedef struct {
    int tid;
    object_t caller; /* object of the last block outside the C library */
    uint64_t system_calls;
    uint64_t since_poll[OBJECTS]; /* instructions by caller */
} thread_t;

static block_t *blocks;
static thread_t threads[THREADS_MAX];
static FILE *out;
static char *chain_name = "", *card_name = "";
static int marks;

/* The object that is mapped at an address of this process. */
static object_t object_at(uintptr_t address)
{
    object_t object = REST;
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) != 2 || address < begin || address >= end)
            continue;
        object = strstr(line, chain_name) ? CHAIN : strstr(line, card_name) ? CARD : REST;
        for (size_t i = 0; i < sizeof C_LIBRARY_PATHS / sizeof *C_LIBRARY_PATHS; i++)
            if (strstr(line, C_LIBRARY_PATHS[i]))
                object = C_LIBRARY;
    }
    fclose(maps);
    return object;
}

static void enter(unsigned cpu, void *data)
{
    if (cpu >= THREADS_MAX)
        return;
    block_t *block = data;
    thread_t *thread = &threads[cpu];
    if (block->object != C_LIBRARY)
        thread->caller = block->object;
    block->entered[cpu] += thread->caller == REST || block->object == CHAIN;
    thread->since_poll[thread->caller] += block->length;
    if (thread->tid == 0)
        thread->tid = gettid();
}

static void translate(plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    block_t *block = calloc(1, sizeof *block);
    block->address = qemu_plugin_tb_vaddr(tb);
    block->length = qemu_plugin_tb_n_insns(tb);
    block->object = object_at((uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0)));
    block->next = blocks; /* QEMU translates one block at a time */
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, enter, 0, block);
}

static void begin(void)
{
    for (int cpu = 0; cpu < THREADS_MAX; cpu++)
        threads[cpu].system_calls = 0;
    for (block_t *block = blocks; block; block = block->next)
        memset(block->entered, 0, sizeof block->entered);
}

static void end(void)
{
    for (int cpu = 0; cpu < THREADS_MAX; cpu++) {
        for (const block_t *block = blocks; block; block = block->next)
            if (block->entered[cpu])
                fprintf(out, "%d block %" PRIx64 " %" PRIu64 "\n", threads[cpu].tid, block->address,
                        block->entered[cpu] * block->length);
        if (threads[cpu].system_calls)
            fprintf(out, "%d calls %" PRIu64 "\n", threads[cpu].tid, threads[cpu].system_calls);
    }
    fclose(out);
}

static void system_call(plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (cpu < THREADS_MAX && threads[cpu].caller != CARD) {
        thread_t *thread = &threads[cpu];
        thread->system_calls++;
        if (number == SYS_poll) {
            if (marks == 1)
                fprintf(out, "%d frame %" PRIu64 " %" PRIu64 "\n", thread->tid, thread->since_poll[CHAIN],
                        thread->since_poll[REST]);
            memset(thread->since_poll, 0, sizeof thread->since_poll);
        }
    }
    if (number != MARK_SYSCALL)
        return;
    if (marks++ == 0)
        begin();
    else
        end();
}

EXPORT int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=') + 1;
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(value, "w");
        else if (strncmp(argv[i], "chain=", 6) == 0)
            chain_name = strdup(value);
        else if (strncmp(argv[i], "card=", 5) == 0)
            card_name = strdup(value);
    }
    if (!out || !*chain_name || !*card_name)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
