package import MartletBasics

/// Where a socket is, or listens. The host is a literal IPv4 or IPv6 address.
package struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// The seam of the network: stream sockets that never block.
package protocol Network: AnyObject, Sendable {
    /// What this machine calls itself: where clients are told to connect when nothing else is said.
    var localName: String { get }

    /// The literal addresses of a host name, each once, in the order of preference. Blocks: for start-up and lanes.
    func resolve(_ host: String) throws(SystemError) -> [String]

    /// Listens; port 0 takes a free one, which `ListeningSocket.address` tells. `accepted` is called on `loop` with
    /// sockets that no loop watches yet, a bounded number a turn; one may be handed to another loop, which attaches it.
    /// From any thread. `::` takes IPv6 alone, so that `0.0.0.0` can be listened on beside it.
    func listen(
        on address: SocketAddress, options: ListenOptions, loop: any EventLoop,
        accepted: @escaping @Sendable (any StreamSocket) -> Void
    ) throws(SystemError) -> any ListeningSocket

    /// Connects; `completion` is called on `loop`, once, in a later turn, also when the loop ends first. The attempt
    /// has a time limit. From any thread.
    func connect(
        to address: SocketAddress, loop: any EventLoop,
        completion: @escaping @Sendable (Result<any StreamSocket, SystemError>) -> Void
    )
}

/// What the system is asked for with a listening socket; the sockets that it accepts inherit it.
package struct ListenOptions: Sendable, Equatable {
    /// Connections that the system holds ready to be accepted; it has a bound of its own.
    package var backlog: Int32
    /// Nil where the system chooses, and adapts, the size.
    package var sendBufferBytes: Int32?
    package var receiveBufferBytes: Int32?

    package init(backlog: Int32 = 4096, sendBufferBytes: Int32? = nil, receiveBufferBytes: Int32? = nil) {
        self.backlog = backlog
        self.sendBufferBytes = sendBufferBytes
        self.receiveBufferBytes = receiveBufferBytes
    }
}

extension Network {
    package func listen(
        on address: SocketAddress, loop: any EventLoop, accepted: @escaping @Sendable (any StreamSocket) -> Void
    ) throws(SystemError) -> any ListeningSocket {
        try listen(on: address, options: ListenOptions(), loop: loop, accepted: accepted)
    }
}

package protocol ListeningSocket: AnyObject, Sendable {
    var address: SocketAddress { get }
    /// No more is accepted; what was accepted lives on. On its loop.
    func close()
    /// Stops accepting for as long as the process is short of something (descriptors, memory). On its loop.
    func pause(for delay: Interval)
}

/// What became of an attempt to receive or send.
package enum Transfer: Equatable, Sendable {
    /// So many bytes, at least one.
    case moved(Int)
    /// None now: wait for readiness.
    case wouldBlock
    /// The peer has closed its side (receiving), or the connection is gone (both).
    case ended
}

package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 1)
    package static let writable = Readiness(rawValue: 2)
    /// The peer will send no more: it has closed the connection, or its side of it. Told once, also where nobody reads,
    /// so that a connection that waits for something else learns it. What the peer sent before can still be received:
    /// whoever cares receives until `.ended`. A peer that closed its side alone can still be sent to; `.ended` from
    /// `send` says that it cannot.
    package static let hungUp = Readiness(rawValue: 4)
}

/// A connected stream. It belongs to one loop for life, from `attach` on; every call but `attach` is made there.
package protocol StreamSocket: AnyObject, Sendable {
    var local: SocketAddress { get }
    var peer: SocketAddress { get }

    /// Gives the socket to the current loop, once; `ready` is called there, level-triggered, for what `watch` asks.
    /// Watches nothing at first but `hungUp`, which is always told, once.
    func attach(to loop: any EventLoop, ready: @escaping (Readiness) -> Void)

    /// What `ready` is to be called for from now on: `readable`, `writable`, both or nothing; `hungUp` needs no asking.
    /// It is called again each turn for as long as that is so. Asking for what is asked for already costs nothing, and
    /// to stop and ask again little.
    func watch(_ interest: Readiness)

    /// Receives into the first buffer, and what is more into the second, by one system call.
    func receive(into first: UnsafeMutableRawBufferPointer, _ second: UnsafeMutableRawBufferPointer) -> Transfer

    /// Sends a part of the bytes; `more` says that more follows at once, so that small pieces share a packet.
    func send(_ bytes: UnsafeRawBufferPointer, more: Bool) -> Transfer

    /// Sends a part of a range of a file, without a copy through this process where the system can. Throws where the
    /// file cannot be read, or ends before the range; the connection is then as it was. May wait for the disk where the
    /// range is not in the page cache. `more` is a hint that the system may not be able to take.
    func send(_ file: any DiskFile, at offset: Int64, count: Int, more: Bool) throws(SystemError) -> Transfer

    /// No callback comes afterwards; `ready` is let go. A second close is ignored, and a closed socket moves nothing
    /// (`.ended`).
    func close()
}
