/* Preloaded, makes the n-th change of a file below a folder fail, once or from then on. Nothing fails until it is armed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long number, counted;
static int code, forever;

/* error 0 counts only. */
void arm_failing_writes(const char *below, long n, int error, int on) {
    snprintf(folder, sizeof folder, "%s/", below);
    number = n, code = error, forever = on, counted = 0;
}

long count_writes(void) { return counted; }

static int fails_at(const char *path) {
    char whole[2 * PATH_MAX], here[PATH_MAX];
    if (!folder[0]) return 0;
    if (path[0] != '/') {
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    const char *name = strrchr(path, '/');
    if (strncmp(path, folder, strlen(folder)) || !strcmp(name, "/.out") || !strcmp(name, "/.err")) return 0;
    counted++;
    if (!code || (forever ? counted < number : counted != number)) return 0;
    errno = code;
    return 1;
}

static int fails(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails_at(path);
}

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define MODE                          \
    va_list more;                     \
    va_start(more, flags);            \
    mode_t mode = va_arg(more, int);  \
    va_end(more);
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

int open(const char *path, int flags, ...) {
    MODE if (CHANGES(flags) && fails_at(path)) return -1;
    return NEXT(int, open, const char *, int, ...)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE if (CHANGES(flags) && fails_at(path)) return -1;
    return NEXT(int, open64, const char *, int, ...)(path, flags, mode);
}
ssize_t write(int d, const void *from, size_t n) {
    return fails(d) ? -1 : NEXT(ssize_t, write, int, const void *, size_t)(d, from, n);
}
ssize_t pwrite(int d, const void *from, size_t n, off_t at) {
    return fails(d) ? -1 : NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)(d, from, n, at);
}
ssize_t pwrite64(int d, const void *from, size_t n, off64_t at) {
    return fails(d) ? -1 : NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t)(d, from, n, at);
}
int ftruncate(int d, off_t n) { return fails(d) ? -1 : NEXT(int, ftruncate, int, off_t)(d, n); }
int ftruncate64(int d, off64_t n) { return fails(d) ? -1 : NEXT(int, ftruncate64, int, off64_t)(d, n); }
int fsync(int d) { return fails(d) ? -1 : NEXT(int, fsync, int)(d); }
int fdatasync(int d) { return fails(d) ? -1 : NEXT(int, fdatasync, int)(d); }
int mkdir(const char *path, mode_t mode) { return fails_at(path) ? -1 : NEXT(int, mkdir, const char *, mode_t)(path, mode); }
int rename(const char *from, const char *to) {
    return fails_at(to) ? -1 : NEXT(int, rename, const char *, const char *)(from, to);
}
