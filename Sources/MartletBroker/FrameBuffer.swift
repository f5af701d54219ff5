import MartletBasics

/// The memory of one frame that did not arrive in one piece, or of input that waits for its turn.
final class FrameBuffer {
    private(set) var memory: UnsafeMutableRawBufferPointer
    /// How many bytes the frame has.
    private(set) var size: Int
    /// How many of them are there.
    var filled = 0
    /// How many of them are charged to the bound on request memory.
    var charged = 0

    init(size: Int) {
        self.size = size
        memory = .allocate(byteCount: max(size, 1), alignment: 16)
    }

    deinit { memory.deallocate() }

    var isComplete: Bool { filled == size }
    var bytes: UnsafeMutableRawBufferPointer { .init(rebasing: memory[0..<size]) }
    var rest: UnsafeMutableRawBufferPointer { .init(rebasing: memory[filled..<size]) }

    func fill(_ source: UnsafeRawBufferPointer) {
        precondition(filled + source.count <= size, "a frame takes no more than its size")
        UnsafeMutableRawBufferPointer(rebasing: memory[filled..<size]).copyMemory(from: source)
        filled += source.count
    }

    /// Makes it a buffer for another frame, if it is large enough.
    func reuse(size newSize: Int) -> Bool {
        guard newSize <= memory.count else { return false }
        size = newSize
        filled = 0
        charged = 0
        return true
    }
}

/// Buffers of frames that were handled, kept for the next: few, and none larger than a common batch.
struct FrameBufferPool {
    private static let keptLimit = 32
    private static let keptSizeLimit = 512 * 1024
    private var free: [FrameBuffer] = []

    mutating func take(size: Int) -> FrameBuffer {
        if let last = free.last, last.reuse(size: size) {
            free.removeLast()
            return last
        }
        // rounded up, so that frames of nearly the same size share buffers
        let buffer = FrameBuffer(size: size <= Self.keptSizeLimit ? (size + 16_383) & ~16_383 : size)
        _ = buffer.reuse(size: size)
        return buffer
    }

    mutating func give(_ buffer: FrameBuffer) {
        guard free.count < Self.keptLimit, buffer.memory.count <= Self.keptSizeLimit else { return }
        free.append(buffer)
    }
}
