#define _GNU_SOURCE
#include "martlet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(MARTLET_PIECES_LIMIT <= IOV_MAX, "a pwritev takes no more pieces than the system allows");
_Static_assert(sizeof(pthread_t) == sizeof(martlet_thread), "a thread's name fits");

/// Repeats an interrupted call; its result, or the negated errno.
#define RETRY(result, call) \
    do { \
        do { \
            result = (call); \
        } while (result < 0 && errno == EINTR); \
        if (result < 0) result = -errno; \
    } while (0)

// MARK: Sockets

/// A Linux `sendfile`, `send` or `read` moves no more than this.
#define MOVE_LIMIT ((size_t)0x7ffff000)

static int parse(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *size) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0 || found == NULL) return -EINVAL;
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
    if (address->ss_family == AF_INET) {
        ((struct sockaddr_in *)address)->sin_port = htons(port);
    } else if (address->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    } else {
        return -EAFNOSUPPORT;
    }
    return 0;
}

static void describe(const struct sockaddr_storage *address, socklen_t size, char *host, uint16_t *port) {
    *port = 0;
    if (getnameinfo((const struct sockaddr *)address, size, host, MARTLET_HOST_SIZE, NULL, 0, NI_NUMERICHOST) != 0) {
        snprintf(host, MARTLET_HOST_SIZE, "unknown");
        return;
    }
    if (address->ss_family == AF_INET) *port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6) *port = ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
}

int martlet_listen(const char *host, uint16_t port, int backlog, int send_bytes, int receive_bytes) {
    struct sockaddr_storage address;
    socklen_t size;
    int result = parse(host, port, &address, &size);
    if (result < 0) return result;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) goto failed;
    if (address.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) goto failed;
    if (send_bytes > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes) < 0) goto failed;
    if (receive_bytes > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes) < 0) goto failed;
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, backlog) < 0) goto failed;
    return fd;
failed:
    result = -errno;
    close(fd);
    return result;
}

/// No waiting to fill packets; and a peer that vanished without a word is found out in the end, as Kafka has it.
static void set_stream_options(int fd) {
    int on = 1;
    // these fail only where the peer has gone already, and then reading says so
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

int martlet_accept(int fd, char *host, uint16_t *port) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int stream;
    RETRY(stream, accept4(fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (stream < 0) return stream;
    set_stream_options(stream);
    describe(&address, size, host, port);
    return stream;
}

int martlet_connect(const char *host, uint16_t port, int *connected) {
    struct sockaddr_storage address;
    socklen_t size;
    int result = parse(host, port, &address, &size);
    if (result < 0) return result;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_stream_options(fd);
    // an interrupted non-blocking connect goes on in the background, as one in progress does
    *connected = connect(fd, (struct sockaddr *)&address, size) == 0;
    if (*connected || errno == EINPROGRESS || errno == EINTR) return fd;
    result = -errno;
    close(fd);
    return result;
}

int martlet_connect_result(int fd) {
    int code = 0;
    socklen_t size = sizeof code;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0) return -errno;
    return -code;
}

int martlet_local_address(int fd, char *host, uint16_t *port) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) return -errno;
    describe(&address, size, host, port);
    return 0;
}

int martlet_resolve(const char *name, char *hosts, int limit, char *reason, size_t reason_size) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(name, NULL, &hints, &found);
    if (code != 0) {
        int saved = errno;
        snprintf(reason, reason_size, "%s", code == EAI_SYSTEM ? strerrordesc_np(saved) : gai_strerror(code));
        if (code == EAI_SYSTEM) return saved == 0 ? -EIO : -saved;
        return code == EAI_AGAIN ? -EAGAIN : -ENOENT;
    }
    int count = 0;
    for (struct addrinfo *each = found; each != NULL && count < limit; each = each->ai_next) {
        char *host = hosts + (size_t)count * MARTLET_HOST_SIZE;
        int code = getnameinfo(each->ai_addr, each->ai_addrlen, host, MARTLET_HOST_SIZE, NULL, 0, NI_NUMERICHOST);
        if (code == 0) count++;
    }
    freeaddrinfo(found);
    return count;
}

ssize_t martlet_receive(int fd, void *first, size_t first_count, void *second, size_t second_count) {
    ssize_t moved;
    if (second_count == 0) {
        RETRY(moved, recv(fd, first, first_count, 0));
    } else {
        struct iovec pieces[2] = {{first, first_count}, {second, second_count}};
        RETRY(moved, readv(fd, pieces, 2));
    }
    return moved;
}

ssize_t martlet_send(int fd, const void *bytes, size_t count, int more) {
    ssize_t moved;
    RETRY(moved, send(fd, bytes, count, MSG_NOSIGNAL | (more ? MSG_MORE : 0)));
    return moved;
}

ssize_t martlet_sendfile(int socket, int file, int64_t offset, size_t count) {
    ssize_t moved;
    off_t position = offset;
    RETRY(moved, sendfile(socket, file, &position, count < MOVE_LIMIT ? count : MOVE_LIMIT));
    return moved;
}

// MARK: Files

int martlet_open(const char *path, int flags) {
    int mode = O_CLOEXEC | (flags & MARTLET_OPEN_WRITE ? O_RDWR : O_RDONLY);
    if (flags & MARTLET_OPEN_CREATE) mode |= O_CREAT;
    if (flags & MARTLET_OPEN_EXCLUSIVE) mode |= O_EXCL;
    if (flags & MARTLET_OPEN_TRUNCATE) mode |= O_TRUNC;
    if (flags & MARTLET_OPEN_DIRECTORY) mode |= O_DIRECTORY;
    int fd;
    RETRY(fd, open(path, mode, 0644));
    return fd;
}

// Linux has given the descriptor back even where `close` says it was interrupted: never repeated.
int martlet_close(int fd) { return close(fd) < 0 && errno != EINTR ? -errno : 0; }

ssize_t martlet_pread(int fd, void *bytes, size_t count, int64_t offset) {
    ssize_t moved;
    RETRY(moved, pread(fd, bytes, count, offset));
    return moved;
}

ssize_t martlet_pread_cached(int fd, void *bytes, size_t count, int64_t offset) {
    struct iovec piece = {bytes, count};
    ssize_t moved;
    RETRY(moved, preadv2(fd, &piece, 1, offset, RWF_NOWAIT));
    return moved;
}

ssize_t martlet_pwrite(int fd, const void *bytes, size_t count, int64_t offset) {
    ssize_t moved;
    RETRY(moved, pwrite(fd, bytes, count, offset));
    return moved;
}

ssize_t martlet_pwritev(int fd, const void *pieces, int count, int64_t offset) {
    ssize_t moved;
    RETRY(moved, pwritev(fd, pieces, count, offset));
    return moved;
}

int martlet_fdatasync(int fd) {
    int result;
    RETRY(result, fdatasync(fd));
    return result;
}

int martlet_fsync(int fd) {
    int result;
    RETRY(result, fsync(fd));
    return result;
}

int martlet_syncfs(int fd) {
    int result;
    RETRY(result, syncfs(fd));
    return result;
}

int martlet_truncate(int fd, int64_t size) {
    int result;
    RETRY(result, ftruncate(fd, size));
    return result;
}

int martlet_allocate(int fd, int64_t size) {
    // not posix_fallocate: where the file system cannot, glibc would write into every block
    if (size == 0) return 0;
    int result;
    RETRY(result, fallocate(fd, 0, 0, size));
    if (result != -EOPNOTSUPP) return result;
    int64_t now = 0;
    result = martlet_size(fd, &now);
    return result < 0 || now >= size ? result : martlet_truncate(fd, size);
}

int martlet_size(int fd, int64_t *size) {
    struct stat found;
    if (fstat(fd, &found) < 0) return -errno;
    *size = found.st_size;
    return 0;
}

int martlet_lock(int fd) {
    // A lock of the open file description: it conflicts with the locks that other programs take by F_SETLK, and is not
    // lost, as those are, when the process closes some other descriptor of the file.
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result;
    RETRY(result, fcntl(fd, F_OFD_SETLK, &lock));
    return result == -EACCES ? -EAGAIN : result;
}

int martlet_status(const char *path, struct martlet_status *status) {
    struct stat found;
    if (stat(path, &found) < 0) return -errno;
    status->size = found.st_size;
    status->modified_milliseconds = (int64_t)found.st_mtim.tv_sec * 1000 + found.st_mtim.tv_nsec / 1000000;
    status->is_directory = S_ISDIR(found.st_mode);
    return 0;
}

int martlet_space(const char *path, int64_t *total, int64_t *available) {
    struct statvfs found;
    int result;
    RETRY(result, statvfs(path, &found));
    if (result < 0) return result;
    *total = (int64_t)(found.f_blocks * found.f_frsize);
    *available = (int64_t)(found.f_bavail * found.f_frsize);
    return 0;
}

int martlet_rename(const char *from, const char *to) { return rename(from, to) < 0 ? -errno : 0; }
int martlet_unlink(const char *path) { return unlink(path) < 0 ? -errno : 0; }
int martlet_make_directory(const char *path) { return mkdir(path, 0755) < 0 ? -errno : 0; }

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where) {
    (void)status, (void)kind, (void)where;
    return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int martlet_remove_tree(const char *path) {
    // links are removed, not followed; at most 16 descriptors are open at a time
    int result = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return result == -1 && errno != 0 ? -errno : result;
}

int martlet_list(const char *path, void *context, void (*each)(void *context, const char *name)) {
    DIR *folder = opendir(path);
    if (folder == NULL) return -errno;
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(context, entry->d_name);
        errno = 0;
    }
    int result = -errno;
    closedir(folder);
    return result;
}

// MARK: Threads, clocks, the machine

int martlet_thread_start(
    martlet_thread *thread, const char *name, size_t stack_size, int quiet, void *(*body)(void *), void *context) {
    pthread_attr_t attributes;
    int result = pthread_attr_init(&attributes);
    if (result != 0) return -result;
    if (stack_size != 0) result = pthread_attr_setstacksize(&attributes, stack_size);
    sigset_t blocked, before;
    sigfillset(&blocked);
    // those that a fault of the thread itself raises must reach it
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
    if (result == 0 && quiet) pthread_sigmask(SIG_BLOCK, &blocked, &before);
    pthread_t started;
    if (result == 0) {
        result = pthread_create(&started, &attributes, body, context);
        if (quiet) pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    if (result != 0) return -result;
    char kept[16];
    snprintf(kept, sizeof kept, "%s", name);
    pthread_setname_np(started, kept);
    *thread = (martlet_thread)started;
    return 0;
}

int martlet_thread_join(martlet_thread thread) { return -pthread_join((pthread_t)thread, NULL); }
martlet_thread martlet_thread_self(void) { return (martlet_thread)pthread_self(); }

void martlet_thread_yield(void) { sched_yield(); }

int martlet_event_make(void) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void martlet_event_signal(int fd) {
    ssize_t moved;
    // full means signalled already
    RETRY(moved, eventfd_write(fd, 1));
}

void martlet_event_clear(int fd) {
    eventfd_t count;
    ssize_t moved;
    RETRY(moved, eventfd_read(fd, &count));
}

int martlet_is_readable(int fd) {
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    return poll(&asked, 1, 0) > 0;
}

struct martlet_monitor {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
};

struct martlet_monitor *martlet_monitor_make(void) {
    struct martlet_monitor *monitor = malloc(sizeof *monitor);
    if (monitor == NULL) abort();
    pthread_mutex_init(&monitor->mutex, NULL);
    pthread_cond_init(&monitor->condition, NULL);
    return monitor;
}

void martlet_monitor_free(struct martlet_monitor *monitor) {
    pthread_cond_destroy(&monitor->condition);
    pthread_mutex_destroy(&monitor->mutex);
    free(monitor);
}

void martlet_monitor_lock(struct martlet_monitor *monitor) { pthread_mutex_lock(&monitor->mutex); }
void martlet_monitor_unlock(struct martlet_monitor *monitor) { pthread_mutex_unlock(&monitor->mutex); }
void martlet_monitor_wait(struct martlet_monitor *monitor) { pthread_cond_wait(&monitor->condition, &monitor->mutex); }
void martlet_monitor_signal(struct martlet_monitor *monitor) { pthread_cond_signal(&monitor->condition); }
void martlet_monitor_broadcast(struct martlet_monitor *monitor) { pthread_cond_broadcast(&monitor->condition); }

int64_t martlet_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t martlet_wall_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void martlet_error_text(int code, char *text, size_t size) {
    const char *words = strerrordesc_np(code);
    if (words != NULL) {
        snprintf(text, size, "%s", words);
    } else {
        snprintf(text, size, "error %d", code);
    }
}

int martlet_random(void *bytes, size_t count) {
    size_t done = 0;
    while (done < count) {
        ssize_t moved;
        RETRY(moved, getrandom((char *)bytes + done, count - done, 0));
        if (moved < 0) return (int)moved;
        done += (size_t)moved;
    }
    return 0;
}

void martlet_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }

int64_t martlet_raise_descriptor_limit(int64_t wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    rlim_t before = limit.rlim_cur;
    rlim_t target = limit.rlim_max < (rlim_t)wanted ? limit.rlim_max : (rlim_t)wanted;
    if (before < target) {
        limit.rlim_cur = target;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0) limit.rlim_cur = before;
    }
    return limit.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
}

int64_t martlet_memory_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages < 0 || size < 0) return -ENOSYS;
    int64_t bytes = (int64_t)pages * size;
    // the limit of a container: "max", or a number of bytes
    FILE *limit = fopen("/sys/fs/cgroup/memory.max", "re");
    if (limit != NULL) {
        long long allowed = 0;
        if (fscanf(limit, "%lld", &allowed) == 1 && allowed > 0 && allowed < bytes) bytes = allowed;
        fclose(limit);
    }
    return bytes;
}

const char *martlet_environment(size_t index) { return environ == NULL ? NULL : environ[index]; }

ssize_t martlet_write(int fd, const void *bytes, size_t count) {
    ssize_t moved;
    RETRY(moved, write(fd, bytes, count));
    return moved;
}

static void count_name(void *context, const char *name) {
    (void)name;
    ++*(int64_t *)context;
}

void martlet_process_usage(struct martlet_usage *usage) {
    *usage = (struct martlet_usage){-1, -1, -1, -1, -1, -1};
    struct rusage spent;
    if (getrusage(RUSAGE_SELF, &spent) == 0) {
        int64_t seconds = (int64_t)spent.ru_utime.tv_sec + spent.ru_stime.tv_sec;
        int64_t microseconds = (int64_t)spent.ru_utime.tv_usec + spent.ru_stime.tv_usec;
        usage->processor_nanoseconds = seconds * 1000000000 + microseconds * 1000;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        usage->descriptor_limit = limit.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
    FILE *status = fopen("/proc/self/status", "re");
    if (status != NULL) {
        char line[256];
        long long kilobytes;
        while (fgets(line, sizeof line, status) != NULL) {
            if (sscanf(line, "VmSize: %lld", &kilobytes) == 1) usage->virtual_bytes = kilobytes * 1024;
            if (sscanf(line, "VmRSS: %lld", &kilobytes) == 1) usage->resident_bytes = kilobytes * 1024;
            if (sscanf(line, "RssAnon: %lld", &kilobytes) == 1) usage->anonymous_bytes = kilobytes * 1024;
        }
        fclose(status);
    }
    // Linux 6.2 and later say how many there are; before, the names are counted, the one that counts them among them
    struct stat folder;
    if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0) {
        usage->open_descriptors = folder.st_size;
    } else {
        int64_t count = 0;
        if (martlet_list("/proc/self/fd", &count, count_name) == 0) usage->open_descriptors = count - 1;
    }
}
