/* A clock that is wrong: preloaded into a process, it shifts what the process takes for the time of
 * day by the number of seconds that the file named in FAKECLOCK holds (one int64). What the kernel
 * writes itself, the times of files, stays right, as does the monotonic clock. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void open_shift(void) {
    const char *name = getenv("FAKECLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED)
        shift = map;
}

static int64_t seconds(void) { return shift ? *shift : 0; }

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, now);
    if (done == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds();
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(now, zone);
    if (done == 0)
        now->tv_sec += seconds();
    return done;
}

time_t time(time_t *now) {
    static time_t (*real)(time_t *);
    if (!real)
        real = dlsym(RTLD_NEXT, "time");
    time_t done = real(NULL) + seconds();
    if (now)
        *now = done;
    return done;
}
