import MartletBasics
package import MartletWire

/// The bytes of one response, its size before it cut off. Its memory grows with what really arrives: a size alone, which
/// anybody can send, costs nothing.
package final class ResponseFrame: @unchecked Sendable {
    private static let firstBytes = 64 << 10

    let size: Int
    private var memory: UnsafeMutableRawBufferPointer
    private(set) var filledBytes = 0

    init(size: Int) {
        self.size = size
        memory = .allocate(byteCount: min(size, Self.firstBytes), alignment: 16)
    }

    deinit { memory.deallocate() }

    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<filledBytes]) }
    var isWhole: Bool { filledBytes == size }

    /// Where the next bytes go; never beyond the frame.
    var room: UnsafeMutableRawBufferPointer {
        if filledBytes == memory.count, filledBytes < size {
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: min(size, memory.count * 2), alignment: 16)
            larger.copyMemory(from: UnsafeRawBufferPointer(memory))
            memory.deallocate()
            memory = larger
        }
        return UnsafeMutableRawBufferPointer(rebasing: memory[filledBytes...])
    }

    func filled(_ count: Int) {
        precondition(count <= memory.count - filledBytes, "no more was received than there was room for")
        filledBytes += count
    }
}

/// A broker's answer, with the bytes that it was read from: `WireBytes` of the message lie in them.
///
/// A class, so that what is handed from one asynchronous function to the next is one reference however large the
/// message is.
package final class Answer<Message: WireResponse>: Sendable {
    package let message: Message
    package let version: Int16
    package let frame: ResponseFrame
    /// Who answered, as `host:port`.
    package let broker: String

    init(_ message: Message, version: Int16, frame: ResponseFrame, broker: String) {
        self.message = message
        self.version = version
        self.frame = frame
        self.broker = broker
    }
}
