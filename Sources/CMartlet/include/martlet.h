// System calls that Swift cannot reach (they need _GNU_SOURCE, or take variable arguments), or reaches at a cost.
//
// What can fail returns the negated errno; interrupted calls are repeated here. Nothing else is decided here.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Room for a literal IPv6 address with its zone, and the final zero.
#define MARTLET_HOST_SIZE 80

// MARK: Sockets. Every descriptor is non-blocking and closed on exec; streams have TCP_NODELAY and
// SO_KEEPALIVE.

/// Listens on a literal address (IPv6 without IPv4 beside it, so that both can be listened on); the descriptor.
// Accepted sockets inherit the sizes of the buffers; 0 leaves them to the system.
int martlet_listen(const char *host, uint16_t port, int backlog, int send_bytes, int receive_bytes);
/// The next connection's descriptor; its peer's address is written to `host` (MARTLET_HOST_SIZE bytes) and `port`.
int martlet_accept(int fd, char *host, uint16_t *port);
/// Starts to connect; the descriptor. `*connected` says whether it is connected already.
int martlet_connect(const char *host, uint16_t port, int *connected);
/// What became of a connect: 0, or the negated errno.
int martlet_connect_result(int fd);
int martlet_local_address(int fd, char *host, uint16_t *port);
/// The literal addresses of a name, MARTLET_HOST_SIZE bytes each, at most `limit`; how many. On failure `reason` says
/// why.
int martlet_resolve(const char *name, char *hosts, int limit, char *reason, size_t reason_size);

ssize_t martlet_receive(int fd, void *first, size_t first_count, void *second, size_t second_count);
ssize_t martlet_send(int fd, const void *bytes, size_t count, int more);
ssize_t martlet_sendfile(int socket, int file, int64_t offset, size_t count);

// MARK: Files

/// `flags` are those of MARTLET_OPEN_…; the descriptor.
int martlet_open(const char *path, int flags);
enum {
    MARTLET_OPEN_READ = 0,
    MARTLET_OPEN_WRITE = 1,
    MARTLET_OPEN_CREATE = 2,
    MARTLET_OPEN_EXCLUSIVE = 4,
    MARTLET_OPEN_TRUNCATE = 8,
    MARTLET_OPEN_DIRECTORY = 16,
};
int martlet_close(int fd);
ssize_t martlet_pread(int fd, void *bytes, size_t count, int64_t offset);
/// From the page cache alone: -EAGAIN where the disk would have to be waited for.
ssize_t martlet_pread_cached(int fd, void *bytes, size_t count, int64_t offset);
ssize_t martlet_pwrite(int fd, const void *bytes, size_t count, int64_t offset);
/// `pieces` are `struct iovec`, at most MARTLET_PIECES_LIMIT.
#define MARTLET_PIECES_LIMIT 1024
ssize_t martlet_pwritev(int fd, const void *pieces, int count, int64_t offset);
int martlet_fdatasync(int fd);
int martlet_fsync(int fd);
int martlet_syncfs(int fd);
int martlet_truncate(int fd, int64_t size);
int martlet_allocate(int fd, int64_t size);
int martlet_size(int fd, int64_t *size);
/// Takes the lock on the whole file without waiting: -EAGAIN where another holds it.
int martlet_lock(int fd);

struct martlet_status {
    int64_t size;
    int64_t modified_milliseconds;
    int is_directory;
};
int martlet_status(const char *path, struct martlet_status *status);
int martlet_space(const char *path, int64_t *total, int64_t *available);
int martlet_rename(const char *from, const char *to);
int martlet_unlink(const char *path);
int martlet_make_directory(const char *path);
int martlet_remove_tree(const char *path);
/// Calls `each` with every name but `.` and `..`.
int martlet_list(const char *path, void *context, void (*each)(void *context, const char *name));

// MARK: Threads, clocks, the machine

typedef uintptr_t martlet_thread;

/// Starts a thread of that name (15 bytes are kept) and stack size (0: the system's); it takes no signals where
/// `quiet`.
int martlet_thread_start(
    martlet_thread *thread, const char *name, size_t stack_size, int quiet, void *(*body)(void *), void *context);
int martlet_thread_join(martlet_thread thread);
martlet_thread martlet_thread_self(void);
void martlet_thread_yield(void);

/// A descriptor that can be read once `martlet_event_signal` was called, until `martlet_event_clear`.
int martlet_event_make(void);
void martlet_event_signal(int fd);
void martlet_event_clear(int fd);
/// 1 where reading would not have to wait, 0 where it would.
int martlet_is_readable(int fd);

/// A mutex and a condition, in memory that does not move.
struct martlet_monitor;
struct martlet_monitor *martlet_monitor_make(void);
void martlet_monitor_free(struct martlet_monitor *monitor);
void martlet_monitor_lock(struct martlet_monitor *monitor);
void martlet_monitor_unlock(struct martlet_monitor *monitor);
void martlet_monitor_wait(struct martlet_monitor *monitor);
void martlet_monitor_signal(struct martlet_monitor *monitor);
void martlet_monitor_broadcast(struct martlet_monitor *monitor);

int64_t martlet_monotonic_nanoseconds(void);
int64_t martlet_wall_milliseconds(void);

/// The system's words for a code, in `text`.
void martlet_error_text(int code, char *text, size_t size);
int martlet_random(void *bytes, size_t count);
void martlet_ignore_sigpipe(void);
/// Raises the limit of open descriptors towards `wanted`; the limit now.
int64_t martlet_raise_descriptor_limit(int64_t wanted);
int64_t martlet_memory_bytes(void);
/// What this process has of the machine; -1 for what the system does not say.
struct martlet_usage {
    int64_t processor_nanoseconds;
    int64_t resident_bytes;
    int64_t anonymous_bytes;
    int64_t virtual_bytes;
    int64_t open_descriptors;
    int64_t descriptor_limit;
};
void martlet_process_usage(struct martlet_usage *usage);
/// An entry of the environment, `NAME=value`; NULL behind the last.
const char *martlet_environment(size_t index);
ssize_t martlet_write(int fd, const void *bytes, size_t count);
