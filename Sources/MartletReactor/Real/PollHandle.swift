import CUV

/// One descriptor that a loop watches: libuv's poll handle, its memory, and the object that hears of it. On the loop
/// only.
///
/// The handle keeps the object alive from `start` to `stopWatching`.
class PollHandle: @unchecked Sendable {
    let descriptor: Int32
    private(set) unowned(unsafe) var loop: UVEventLoop?
    private var handle: UnsafeMutablePointer<uv_poll_t>?
    /// What libuv was asked for; empty when it watches nothing.
    private(set) final var armed: Int32 = 0

    init(descriptor: Int32) { self.descriptor = descriptor }

    @inline(__always)
    static func of(_ data: UnsafeMutableRawPointer?) -> PollHandle {
        Unmanaged<PollHandle>.fromOpaque(data!).takeUnretainedValue()
    }

    /// What is ready, as bits of `uv_poll_event`; `failed` where the descriptor has an error pending, and is not
    /// watched any more.
    func became(_ events: Int32, failed: Bool) {
        preconditionFailure("a watched descriptor has somebody who hears of it")
    }

    /// The loop goes: nothing will be heard of afterwards.
    func loopEnds() { preconditionFailure("a watched descriptor has somebody who closes it") }

    final var isWatched: Bool { handle != nil }

    final func startWatching(on loop: UVEventLoop) -> Int32 {
        precondition(handle == nil, "a descriptor has one loop for life")
        let handle = UnsafeMutablePointer<uv_poll_t>.allocate(capacity: 1)
        let code = uv_poll_init(loop.uv, handle, descriptor)
        guard code == 0 else {
            handle.deallocate()
            return code
        }
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        self.handle = handle
        self.loop = loop
        return 0
    }

    /// Asks for these events and no others: two system calls, so callers skip it where nothing changes.
    final func arm(_ events: Int32) {
        guard let handle, events != armed else { return }
        armed = events
        guard events != 0 else {
            uv_poll_stop(handle)
            return
        }
        let code = uv_poll_start(handle, events) { handle, status, events in
            let object = PollHandle.of(handle!.pointee.data)
            if status < 0 { object.armed = 0 }
            object.became(events, failed: status < 0)
        }
        precondition(code == 0, "an open descriptor that was polled once can be polled again")
    }

    /// The last: no event comes afterwards, and the descriptor may be closed at once.
    final func stopWatching() {
        guard let handle else { return }
        self.handle = nil
        armed = 0
        uv_poll_stop(handle)
        uv_close(UnsafeMutableRawPointer(handle).assumingMemoryBound(to: uv_handle_t.self)) { handle in
            let memory = UnsafeMutableRawPointer(handle!).assumingMemoryBound(to: uv_poll_t.self)
            Unmanaged<PollHandle>.fromOpaque(memory.pointee.data).release()
            memory.deallocate()
        }
    }
}

/// One signal that a loop hears of. On the loop only.
final class SignalHandle: @unchecked Sendable {
    private let handle = UnsafeMutablePointer<uv_signal_t>.allocate(capacity: 1)
    private let received: (Int32) -> Void

    static func of(_ data: UnsafeMutableRawPointer?) -> SignalHandle {
        Unmanaged<SignalHandle>.fromOpaque(data!).takeUnretainedValue()
    }

    /// Lives until the loop is finished, or `close`.
    @discardableResult
    init(_ signal: Int32, loop: UVEventLoop, _ received: @escaping (Int32) -> Void) {
        self.received = received
        uv_signal_init(loop.uv, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        let code = uv_signal_start(
            handle, { handle, signal in SignalHandle.of(handle!.pointee.data).received(signal) }, signal)
        precondition(code == 0, "the signal exists and can be caught")
    }

    func close() {
        uv_close(UnsafeMutableRawPointer(handle).assumingMemoryBound(to: uv_handle_t.self)) { handle in
            let memory = UnsafeMutableRawPointer(handle!).assumingMemoryBound(to: uv_signal_t.self)
            Unmanaged<SignalHandle>.fromOpaque(memory.pointee.data).release()
            memory.deallocate()
        }
    }
}
