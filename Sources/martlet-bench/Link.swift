import MartletBasics
import MartletReactor

/// Whoever speaks over a link: it says what to send next, and takes what comes.
protocol Speaker: AnyObject {
    /// The next request; nil while there is none. Asked again after everything that was received.
    func nextRequest() throws(BenchFault) -> Frame?
    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault)
    func failed(_ fault: BenchFault)
}

/// A connection to the server, on its loop. It keeps no bytes of what it receives: they go to the speaker as they come.
final class Link {
    /// What links of one load receive into, one after the other.
    final class Scratch {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        deinit { bytes.deallocate() }
    }

    private let socket: any StreamSocket
    private let scratch: Scratch
    private unowned let speaker: any Speaker
    /// What is being sent, and how much of it is gone.
    private var request: Frame?
    private var sentBytes = 0
    private var isClosed = false

    init(_ socket: any StreamSocket, scratch: Scratch, speaker: any Speaker) {
        self.socket = socket
        self.scratch = scratch
        self.speaker = speaker
    }

    func start(on loop: any EventLoop) {
        socket.attach(to: loop) { [unowned self] readiness in ready(readiness) }
        pump()
    }

    /// Sends what the speaker has, as far as the connection takes it.
    func pump() {
        do throws(BenchFault) { try send() } catch { fail(error) }
    }

    func close() {
        isClosed = true
        request = nil
        socket.close()
    }

    private func send() throws(BenchFault) {
        while !isClosed {
            if request == nil {
                request = try speaker.nextRequest()
                sentBytes = 0
            }
            guard let frame = request else { return socket.watch(.readable) }
            switch socket.send(UnsafeRawBufferPointer(rebasing: frame.bytes[sentBytes...]), more: false) {
            case .moved(let count):
                sentBytes += count
                if sentBytes == frame.bytes.count { request = nil }
            case .wouldBlock: return socket.watch([.readable, .writable])
            case .ended: throw BenchFault("the server closed a connection")
            }
        }
    }

    private func ready(_ readiness: Readiness) {
        do throws(BenchFault) {
            if readiness != .writable { try receive() }
            try send()
        } catch {
            fail(error)
        }
    }

    private func receive() throws(BenchFault) {
        switch socket.receive(into: scratch.bytes, UnsafeMutableRawBufferPointer(start: nil, count: 0)) {
        case .moved(let count): try speaker.received(UnsafeRawBufferPointer(rebasing: scratch.bytes[..<count]))
        case .wouldBlock: break
        case .ended: throw BenchFault("the server closed a connection")
        }
    }

    private func fail(_ fault: BenchFault) {
        guard !isClosed else { return }
        close()
        speaker.failed(fault)
    }
}
