/* Interface of a counted program and the plugin that counts (insncount.c). */
#ifndef APMPI_BENCH_INSNCOUNT_H
#define APMPI_BENCH_INSNCOUNT_H

enum { MARK_SYSCALL = 7777 }; /* no kernel has it: without the plugin a mark does nothing */

#endif
