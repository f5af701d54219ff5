import CMartlet
import CUV
import Glibc
internal import MartletBasics

/// A TCP stream. `watch` asks the system for more at once, and for less only when an event comes that nobody wants any
/// more: a connection that stops reading for a moment and goes on costs no system call.
final class RealSocket: PollHandle, StreamSocket, @unchecked Sendable {
    let local: SocketAddress
    let peer: SocketAddress
    private var interest: Readiness = []
    private var ready: ((Readiness) -> Void)?
    private var hasToldHangUp = false
    private var isClosed = false

    private static let disconnect = Int32(UV_DISCONNECT.rawValue)
    private static let readable = Int32(UV_READABLE.rawValue)
    private static let writable = Int32(UV_WRITABLE.rawValue)

    init(descriptor: Int32, peer: SocketAddress) {
        local = SocketAddress(localOf: descriptor)
        self.peer = peer
        super.init(descriptor: descriptor)
    }

    deinit {
        // one that was attached is kept by its loop until it is closed
        if !isClosed { _ = martlet_close(descriptor) }
    }

    func attach(to loop: any EventLoop, ready: @escaping (Readiness) -> Void) {
        guard let loop = loop as? UVEventLoop else { preconditionFailure("a real socket lives on a real loop") }
        precondition(loop.isCurrent, "a socket is attached on the loop that it goes to")
        precondition(!isClosed, "a closed socket is not attached")
        let code = startWatching(on: loop)
        precondition(code == 0, "a connected socket can be polled")
        self.ready = ready
        arm(Self.disconnect)
    }

    func watch(_ interest: Readiness) {
        guard !isClosed else { return }
        precondition(isWatched, "a socket is attached before it is watched")
        self.interest = interest
        let wanted = bits(interest)
        if wanted & ~armed != 0 { arm(wanted | (hasToldHangUp ? 0 : Self.disconnect)) }
    }

    @inline(__always)
    private func bits(_ interest: Readiness) -> Int32 {
        (interest.contains(.readable) ? Self.readable : 0) | (interest.contains(.writable) ? Self.writable : 0)
    }

    override func became(_ events: Int32, failed: Bool) {
        guard !failed else { return failedConnection() }
        // level-triggered: what is armed and not wanted would come again and again
        let wanted = bits(interest)
        var told = Readiness(rawValue: UInt8(truncatingIfNeeded: events & wanted & (Self.readable | Self.writable)))
        if events & Self.disconnect != 0, !hasToldHangUp {
            hasToldHangUp = true
            told.insert(.hungUp)
            arm(wanted)
        } else if events & ~wanted != 0 {
            arm(wanted | (hasToldHangUp ? 0 : Self.disconnect))
        }
        if !told.isEmpty { ready?(told) }
    }

    /// A reset: the socket is told as ready for all that is wanted, so that receiving or sending finds the end.
    private func failedConnection() {
        var told = interest.intersection([.readable, .writable])
        if !hasToldHangUp {
            hasToldHangUp = true
            told.insert(.hungUp)
        }
        arm(bits(interest))
        if !told.isEmpty { ready?(told) }
    }

    override func loopEnds() { closeNow() }

    func receive(into first: UnsafeMutableRawBufferPointer, _ second: UnsafeMutableRawBufferPointer) -> Transfer {
        precondition(first.count > 0, "bytes are received into a buffer that has room")
        guard !isClosed else { return .ended }
        let moved = martlet_receive(descriptor, first.baseAddress, first.count, second.baseAddress, second.count)
        if moved > 0 { return .moved(moved) }
        return moved == -Int(EAGAIN) ? .wouldBlock : .ended
    }

    func send(_ bytes: UnsafeRawBufferPointer, more: Bool) -> Transfer {
        precondition(bytes.count > 0, "there is something to send")
        guard !isClosed else { return .ended }
        let moved = martlet_send(descriptor, bytes.baseAddress, bytes.count, more ? 1 : 0)
        if moved > 0 { return .moved(moved) }
        return moved == -Int(EAGAIN) ? .wouldBlock : .ended
    }

    func send(_ file: any DiskFile, at offset: Int64, count: Int, more: Bool) throws(SystemError) -> Transfer {
        precondition(count > 0, "there is something to send")
        guard !isClosed else { return .ended }
        guard let file = file as? RealFile else { return try copy(file, at: offset, count: count, more: more) }
        let moved = try file.withDescriptor("sendfile") { martlet_sendfile(descriptor, $0, offset, count) }
        if moved > 0 { return .moved(moved) }
        if moved == 0 { throw SystemError(endOf: file.path, "sendfile") }
        let code = Int32(-moved)
        if code == EAGAIN { return .wouldBlock }
        if SystemError.concernsConnection(code) { return .ended }
        throw SystemError(errno: code, "sendfile", file.path)
    }

    /// A file that is not the system's own: a piece of it through memory.
    private func copy(_ file: any DiskFile, at offset: Int64, count: Int, more: Bool) throws(SystemError) -> Transfer {
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: min(count, 64 * 1024), alignment: 16)
        defer { piece.deallocate() }
        let read = try file.read(into: piece, at: offset)
        guard read > 0 else { throw SystemError(endOf: file.path, "read") }
        return send(UnsafeRawBufferPointer(rebasing: piece[..<read]), more: more || read < count)
    }

    func close() {
        guard !isClosed else { return }
        if isWatched { precondition(loop!.isCurrent, "a socket is closed on its loop") }
        closeNow()
    }

    private func closeNow() {
        isClosed = true
        // whoever is being told of an event keeps this alive until that returns
        ready = nil
        stopWatching()
        _ = martlet_close(descriptor)
    }
}

extension SocketAddress {
    init(localOf descriptor: Int32) {
        self = Self.filled { host, port in _ = martlet_local_address(descriptor, host, port) }
    }

    /// From C's text and port.
    static func filled(
        _ body: (UnsafeMutablePointer<CChar>, UnsafeMutablePointer<UInt16>) -> Void
    ) -> SocketAddress {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(MARTLET_HOST_SIZE)) { host in
            host[0] = 0
            var port: UInt16 = 0
            body(host.baseAddress!, &port)
            return SocketAddress(host: String(cString: host.baseAddress!), port: port)
        }
    }
}

extension SystemError {
    init(endOf path: String, _ operation: StaticString) {
        self.init(.inputOutput, code: 0, operation: operation, subject: path, reason: "the file ends before the range")
    }
}
