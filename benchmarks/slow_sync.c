/* Makes a disk slow for one process: every fsync and fdatasync takes BENCH_SLOW_SYNC_US microseconds longer.
   gcc -O2 -shared -fPIC -o slow_sync.so slow_sync.c -ldl; then LD_PRELOAD=slow_sync.so */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static int slowly(const char *name, int fd) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = sync(fd), error = errno;
    const char *text = getenv("BENCH_SLOW_SYNC_US");
    long us = text ? atol(text) : 0;
    struct timespec wait = {us / 1000000, us % 1000000 * 1000};
    prctl(PR_SET_TIMERSLACK, 1000); /* ns: the default of 50 us would be added to each */
    while (us && nanosleep(&wait, &wait) && errno == EINTR) {
    }
    errno = error;
    return result;
}

int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
