// Counts the operations by which a process changes the files below one directory, and kills the process at one of them.
//
// Loaded with LD_PRELOAD. `faults_arm` sets the directory and the number of the operation. A write is cut in the middle;
// any other operation is not done at all. Each operation is first named in a file: its number, its name, its path.

#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char directory[PATH_MAX];
static size_t length;
static long operation, last;
static int log_file = -1;

void faults_arm(const char *path, long kill_at, int fd) {
  last = kill_at;
  operation = 0;
  log_file = fd;
  strncpy(directory, path, sizeof directory - 1);
  length = strlen(directory);
}

static void end(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// Writes the path of a descriptor to `out`; returns 0 if there is none.
static int path_of(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, out, PATH_MAX - 1);
  if (n <= 0) return 0;
  out[n] = 0;
  return 1;
}

static int is_inside(const char *path) {
  return length && strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

// Counts an operation on `path`; returns 1 if the process must end at it.
static int reached(const char *name, const char *path) {
  long number = __sync_add_and_fetch(&operation, 1);
  dprintf(log_file, "%ld %s %s\n", number, name, path + length);
  return number == last;
}

static int reached_fd(const char *name, int fd) {
  char path[PATH_MAX];
  return length && fd != log_file && path_of(fd, path) && is_inside(path) && reached(name, path);
}

static int reached_at(const char *name, int fd, const char *path) {
  char full[2 * PATH_MAX], base[PATH_MAX];
  int number, used = 0;
  if (!length) return 0;
  if (sscanf(path, "/proc/self/fd/%d%n", &number, &used) == 1 && used && path_of(number, base))
    snprintf(full, sizeof full, "%s%s", base, path + used);
  else if (path[0] != '/' && fd != AT_FDCWD && path_of(fd, base))
    snprintf(full, sizeof full, "%s/%s", base, path);
  else
    snprintf(full, sizeof full, "%s", path);
  return is_inside(full) && reached(name, full);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITE(name, tail, ...)                                       \
  ssize_t name(int fd, const void *data, size_t size __VA_ARGS__) {  \
    static __typeof__(&name) real;                                   \
    if (!real) real = REAL(name);                                    \
    if (reached_fd(#name, fd)) {                                     \
      real(fd, data, size / 2 tail);                                 \
      end();                                                         \
    }                                                                \
    return real(fd, data, size tail);                                \
  }
#define COMMA ,
WRITE(write, )
WRITE(pwrite, COMMA offset, , off_t offset)
WRITE(pwrite64, COMMA offset, , off64_t offset)

#define ON_FD(type, name, parameters, arguments) \
  type name parameters {                         \
    static __typeof__(&name) real;               \
    if (!real) real = REAL(name);                \
    if (reached_fd(#name, fd)) end();            \
    return real arguments;                       \
  }
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FD(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))

#define ON_PATH(name, parameters, fd, path, arguments) \
  int name parameters {                                \
    static __typeof__(&name) real;                     \
    if (!real) real = REAL(name);                      \
    if (reached_at(#name, fd, path)) end();            \
    return real arguments;                             \
  }
ON_PATH(rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(renameat, (int a, const char *from, int b, const char *to), b, to, (a, from, b, to))
ON_PATH(renameat2, (int a, const char *from, int b, const char *to, unsigned f), b, to, (a, from, b, to, f))
ON_PATH(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(unlink, (const char *path), AT_FDCWD, path, (path))
ON_PATH(unlinkat, (int fd, const char *path, int flags), fd, path, (fd, path, flags))
ON_PATH(rmdir, (const char *path), AT_FDCWD, path, (path))
ON_PATH(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_PATH(mkdirat, (int fd, const char *path, mode_t mode), fd, path, (fd, path, mode))

#define OPEN(name)                                                                                \
  int name(const char *path, int flags, ...) {                                                    \
    static __typeof__(&name) real;                                                                \
    if (!real) real = REAL(name);                                                                 \
    va_list more;                                                                                 \
    va_start(more, flags);                                                                        \
    mode_t mode = va_arg(more, int);                                                              \
    va_end(more);                                                                                 \
    if ((flags & (O_CREAT | O_TRUNC)) && reached_at(#name, AT_FDCWD, path)) end();                \
    return real(path, flags, mode);                                                               \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                              \
  int name(int fd, const char *path, int flags, ...) {                                            \
    static __typeof__(&name) real;                                                                \
    if (!real) real = REAL(name);                                                                 \
    va_list more;                                                                                 \
    va_start(more, flags);                                                                        \
    mode_t mode = va_arg(more, int);                                                              \
    va_end(more);                                                                                 \
    if ((flags & (O_CREAT | O_TRUNC)) && reached_at(#name, fd, path)) end();                      \
    return real(fd, path, flags, mode);                                                           \
  }
OPENAT(openat)
OPENAT(openat64)
