/* A disk that fails when it is told to, put before the C library by LD_PRELOAD. The file that MARTLET_FAULTS names is mapped, and
 * whoever drives the test writes into it while the program runs; only files whose path has MARTLET_FAULTS_UNDER in it are hit.
 *
 *     0 uint32  writes that move a part of their bytes only: every n-th, 0 none
 *     4 uint32  writes that fail with ENOSPC: so many more
 *     8 uint32  writes that fail with EIO: so many more
 *    12 uint32  syncs that fail with EIO: so many more
 *    16 uint32  reads that fail with EIO: so many more
 *    20 uint32  reads that move a part of their bytes only: every n-th, 0 none
 *    24 uint32  microseconds that each sync takes longer
 *    28 uint32  faults that were injected
 *    32 uint32  sends from a file to a socket that fail with EIO: so many more, besides those that are reads that fail
 *    36 uint32  reads that succeed before those that fail: so many more
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

struct faults {
    _Atomic uint32_t short_writes, no_space, bad_writes, bad_syncs, bad_reads, short_reads, slow_syncs, injected, bad_sends, good_reads;
};
static struct faults *faults;
static const char *under;
static _Atomic uint32_t writes, reads;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MARTLET_FAULTS");
    under = getenv("MARTLET_FAULTS_UNDER");
    int fd = path && under ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) faults = mapped;
}

static int is_meant(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, under) != NULL;
}

static int take(_Atomic uint32_t *left, int fd) {
    if (!faults || atomic_load(left) == 0 || !is_meant(fd)) return 0;
    uint32_t now = atomic_load(left);
    while (now > 0)
        if (atomic_compare_exchange_weak(left, &now, now - 1)) {
            atomic_fetch_add(&faults->injected, 1);
            return 1;
        }
    return 0;
}

static int every(_Atomic uint32_t *period, _Atomic uint32_t *count, int fd) {
    uint32_t n = faults ? atomic_load(period) : 0;
    if (n == 0 || !is_meant(fd) || atomic_fetch_add(count, 1) % n != 0) return 0;
    atomic_fetch_add(&faults->injected, 1);
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(code) do { errno = code; return -1; } while (0)

static int write_fault(int fd) {
    if (!faults) return 0;
    if (take(&faults->no_space, fd)) return ENOSPC;
    if (take(&faults->bad_writes, fd)) return EIO;
    return 0;
}

static int is_next_read_bad(int fd) {
    return faults && atomic_load(&faults->bad_reads) > 0 && atomic_load(&faults->good_reads) == 0 && is_meant(fd);
}

static int read_fault(int fd) {
    if (!faults || atomic_load(&faults->bad_reads) == 0 || !is_meant(fd)) return 0;
    uint32_t good = atomic_load(&faults->good_reads);
    while (good > 0)
        if (atomic_compare_exchange_weak(&faults->good_reads, &good, good - 1)) return 0;
    return take(&faults->bad_reads, fd);
}

#define PWRITE(name)                                                                              \
    ssize_t name(int fd, const void *bytes, size_t count, off_t offset) {                         \
        int fault = write_fault(fd);                                                              \
        if (fault) FAIL(fault);                                                                   \
        if (count > 1 && faults && every(&faults->short_writes, &writes, fd)) count /= 2;         \
        return REAL(name)(fd, bytes, count, offset);                                              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name)                                                                             \
    ssize_t name(int fd, const struct iovec *pieces, int count, off_t offset) {                   \
        int fault = write_fault(fd);                                                              \
        if (fault) FAIL(fault);                                                                   \
        if (faults && count > 0 && pieces[0].iov_len > 1 && every(&faults->short_writes, &writes, fd)) { \
            struct iovec half = {pieces[0].iov_base, pieces[0].iov_len / 2};                      \
            return REAL(name)(fd, &half, 1, offset);                                              \
        }                                                                                         \
        return REAL(name)(fd, pieces, count, offset);                                             \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define PREAD(name)                                                                               \
    ssize_t name(int fd, void *bytes, size_t count, off_t offset) {                               \
        if (read_fault(fd)) FAIL(EIO);                                                            \
        if (count > 1 && faults && every(&faults->short_reads, &reads, fd)) count = (count + 1) / 2; \
        return REAL(name)(fd, bytes, count, offset);                                              \
    }
PREAD(pread)
PREAD(pread64)

/* To the first half of the first piece, now and then. */
static void shorten(const struct iovec **pieces, int *count, int fd, struct iovec *half) {
    if (!faults || *count < 1 || (*pieces)->iov_len < 2 || !every(&faults->short_reads, &reads, fd)) return;
    *half = (struct iovec){(*pieces)->iov_base, ((*pieces)->iov_len + 1) / 2};
    *pieces = half, *count = 1;
}

#define PREADV(name)                                                                              \
    ssize_t name(int fd, const struct iovec *pieces, int count, off_t offset) {                   \
        struct iovec half;                                                                        \
        if (read_fault(fd)) FAIL(EIO);                                                            \
        shorten(&pieces, &count, fd, &half);                                                     \
        return REAL(name)(fd, pieces, count, offset);                                             \
    }
PREADV(preadv)
PREADV(preadv64)

/* Who will not wait for the disk is told nothing of it: what cannot be read is not in the page cache. */
#define PREADV2(name)                                                                             \
    ssize_t name(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {        \
        struct iovec half;                                                                        \
        if (flags & RWF_NOWAIT) {                                                                 \
            if (is_next_read_bad(fd)) FAIL(EAGAIN);                                               \
        } else if (read_fault(fd)) FAIL(EIO);                                                     \
        shorten(&pieces, &count, fd, &half);                                                     \
        return REAL(name)(fd, pieces, count, offset, flags);                                      \
    }
PREADV2(preadv2)
PREADV2(preadv64v2)

/* From a file to a socket: the way to consumers. */
#define SENDFILE(name)                                                                            \
    ssize_t name(int to, int from, off_t *offset, size_t count) {                                 \
        if (read_fault(from) || (faults && take(&faults->bad_sends, from))) FAIL(EIO);            \
        if (count > 1 && faults && every(&faults->short_reads, &reads, from)) count = (count + 1) / 2; \
        return REAL(name)(to, from, offset, count);                                               \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define SYNC(name)                                                                                \
    int name(int fd) {                                                                            \
        if (faults && take(&faults->bad_syncs, fd)) FAIL(EIO);                                    \
        uint32_t slow = faults ? atomic_load(&faults->slow_syncs) : 0;                            \
        if (slow && is_meant(fd)) {                                                               \
            usleep(slow);                                                                         \
            atomic_fetch_add(&faults->injected, 1);                                               \
        }                                                                                         \
        return REAL(name)(fd);                                                                    \
    }
SYNC(fdatasync)
SYNC(fsync)
SYNC(syncfs)
