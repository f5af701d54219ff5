import CMartlet

/// A system thread that runs one function and is joined once.
final class Thread: @unchecked Sendable {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private let handle: martlet_thread

    /// `quiet` threads take no signals, so that none interrupts a slow system call there. A stack of 0 bytes: the
    /// system's size.
    init(_ name: String, stackBytes: Int, quiet: Bool, _ run: @escaping @Sendable () -> Void) throws(SystemError) {
        let body = Unmanaged.passRetained(Body(run))
        var handle: martlet_thread = 0
        let code = martlet_thread_start(
            &handle, name, stackBytes, quiet ? 1 : 0,
            { context in
                Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        guard code == 0 else {
            body.release()
            throw SystemError(errno: code, "pthread_create", name)
        }
        self.handle = handle
    }

    /// Waits until the function has returned. Once.
    func join() {
        let code = martlet_thread_join(handle)
        precondition(code == 0, "a thread is joined once, and not by itself")
    }
}

/// A mutex with a condition, for threads that wait for work.
final class Monitor: @unchecked Sendable {
    private let monitor = martlet_monitor_make()!

    deinit { martlet_monitor_free(monitor) }

    func withLock<R>(_ body: () -> R) -> R {
        martlet_monitor_lock(monitor)
        defer { martlet_monitor_unlock(monitor) }
        return body()
    }

    /// Gives the lock up until somebody signals. Inside `withLock`, in a loop that asks for what is waited for.
    func wait() { martlet_monitor_wait(monitor) }
    func signal() { martlet_monitor_signal(monitor) }
    func broadcast() { martlet_monitor_broadcast(monitor) }
}
