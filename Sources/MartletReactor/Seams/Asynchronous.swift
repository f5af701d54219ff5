package import MartletBasics

// The seams for code of tasks: the same over the real and the simulated implementation. A task that prefers a loop (see
// `EventLoop.spawn`) comes back to that loop; one that does not comes back wherever it runs.

extension EventLoop {
    /// Suspends the task, not before `delay` has passed. Cancelling the task does not cut it short.
    package func sleep(for delay: Interval) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            if isCurrent {
                schedule(after: delay) { continuation.resume() }
            } else {
                execute { self.schedule(after: delay) { continuation.resume() } }
            }
        }
    }

    /// Runs `work` on the loop, and hands its result back.
    package func run<R: Sendable>(_ work: @escaping @Sendable () -> R) async -> R {
        await withUnsafeContinuation { continuation in
            execute { continuation.resume(returning: work()) }
        }
    }
}

extension Lane {
    /// Runs `work` on the lane; its result arrives over `loop`. Throws `busy` when the queue is full.
    package func run<R: Sendable>(
        on loop: any EventLoop, _ work: @escaping @Sendable () -> R
    ) async throws(SystemError) -> R {
        let result: Result<R, SystemError> = await withUnsafeContinuation { continuation in
            guard !submit(work, on: loop, then: { continuation.resume(returning: .success($0)) }) else { return }
            let full = SystemError(.busy, code: 0, operation: "submit", subject: name, reason: "the queue is full")
            continuation.resume(returning: .failure(full))
        }
        return try result.get()
    }
}

extension Network {
    /// Connects, for a task of `loop`.
    package func connect(to address: SocketAddress, loop: any EventLoop) async throws(SystemError) -> any StreamSocket {
        let result: Result<any StreamSocket, SystemError> = await withUnsafeContinuation { continuation in
            connect(to: address, loop: loop) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }
}
