/* LD_PRELOAD: a disk that blocks. While the file named in BLOCKED_WHILE exists, writing and syncing files
 * called *.part waits; each time it does, a byte is added to the file BLOCKED_TIMES. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t write_t(int, const void *, size_t);
typedef int fsync_t(int);

static void wait_for_disk(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    const char *blocked = getenv("BLOCKED_WHILE"), *times = getenv("BLOCKED_TIMES");
    if (length < 5 || memcmp(path + length - 5, ".part", 5) != 0 || !blocked || !times ||
        access(blocked, F_OK) != 0)
        return;
    const int count = open(times, O_WRONLY | O_CREAT | O_APPEND, 0600);
    ((write_t *)dlsym(RTLD_NEXT, "write"))(count, ".", 1);
    close(count);
    while (access(blocked, F_OK) == 0)
        usleep(20000);
}

ssize_t write(int fd, const void *data, size_t count)
{
    wait_for_disk(fd);
    return ((write_t *)dlsym(RTLD_NEXT, "write"))(fd, data, count);
}

int fsync(int fd)
{
    wait_for_disk(fd);
    return ((fsync_t *)dlsym(RTLD_NEXT, "fsync"))(fd);
}
