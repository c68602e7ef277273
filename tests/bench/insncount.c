/* A plugin for qemu-user that counts what a program executes, between marks that the program sets itself.
 *
 * A mark is a system call with a number that no kernel knows, MARK_SYSCALL, and a label as its argument
 * (insncount.h): the kernel's part refuses it, and here a line "label instructions" is written. Instructions
 * are counted per translated block as it is entered; a system call ends a block, so counts at marks are
 * exact, and the same in every run.
 *
 *   qemu-aarch64 -plugin libinsncount.so,out=FILE[,functions=FILE] program
 *
 * `functions`: instructions per function, of the whole run. */
#include "qemu_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "insncount.h"

enum { MAX_FUNCTIONS = 4096 };
typedef struct {
    char name[64];
    uint64_t count;
} function_t;
/* A block's length and its function; never freed, as QEMU may keep its translation. */
typedef struct {
    uint64_t length;
    function_t *function;
} block_t;

static function_t functions[MAX_FUNCTIONS];
static int known;
static uint64_t total;
static FILE *marks, *profile;

static function_t *find(const char *name)
{
    for (int i = 0; i < known; i++)
        if (strcmp(functions[i].name, name) == 0)
            return &functions[i];
    if (known < MAX_FUNCTIONS - 1)
        known++;
    snprintf(functions[known - 1].name, sizeof functions->name, "%s", name);
    return &functions[known - 1];
}

static void enter(unsigned cpu, void *data)
{
    (void)cpu;
    const block_t *block = data;
    total += block->length;
    block->function->count += block->length;
}

static void translate(plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    block_t *block = malloc(sizeof *block);
    const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
    *block = (block_t){qemu_plugin_tb_n_insns(tb), find(name ? name : "(no symbol)")};
    qemu_plugin_register_vcpu_tb_exec_cb(tb, enter, 0, block);
}

static void system_call(plugin_id_t id, unsigned cpu, int64_t number, uint64_t label, uint64_t a2,
                        uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == MARK_SYSCALL)
        fprintf(marks, "%llu %llu\n", (unsigned long long)label, (unsigned long long)total);
}

static int by_count(const void *a, const void *b)
{
    const uint64_t x = ((const function_t *)a)->count, y = ((const function_t *)b)->count;
    return (x < y) - (x > y);
}

static void finish(plugin_id_t id, void *data)
{
    (void)id, (void)data;
    fclose(marks);
    if (!profile)
        return;
    qsort(functions, (size_t)known, sizeof *functions, by_count);
    for (int i = 0; i < known; i++)
        fprintf(profile, "%s %llu\n", functions[i].name, (unsigned long long)functions[i].count);
    fclose(profile);
}

EXPORT int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0)
            marks = fopen(argv[i] + 4, "w");
        if (strncmp(argv[i], "functions=", 10) == 0)
            profile = fopen(argv[i] + 10, "w");
    }
    if (!marks)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
