/// The memory of one frame that did not arrive in one piece, or of input that waits for its turn.
package final class FrameBuffer {
    package private(set) var memory: UnsafeMutableRawBufferPointer
    /// How many bytes the frame has.
    package private(set) var size: Int
    /// How many of them are there.
    package var filled = 0
    /// How many of them are charged to the bound on request memory.
    package var charged = 0
    /// Who took it, and the appends that refer to it.
    package var users = 1

    package init(size: Int) {
        self.size = size
        memory = .allocate(byteCount: max(size, 1), alignment: 16)
    }

    deinit { memory.deallocate() }

    package var isComplete: Bool { filled == size }
    package var bytes: UnsafeMutableRawBufferPointer { .init(rebasing: memory[0..<size]) }
    package var rest: UnsafeMutableRawBufferPointer { .init(rebasing: memory[filled..<size]) }

    package func fill(_ source: UnsafeRawBufferPointer) {
        precondition(filled + source.count <= size, "a frame takes no more than its size")
        UnsafeMutableRawBufferPointer(rebasing: memory[filled..<size]).copyMemory(from: source)
        filled += source.count
    }

    /// Makes it a buffer for another frame, if it is large enough.
    package func reuse(size newSize: Int) -> Bool {
        guard newSize <= memory.count else { return false }
        size = newSize
        filled = 0
        charged = 0
        users = 1
        return true
    }
}

/// Buffers of frames that were handled, kept for the next: few, and none larger than a common batch.
package struct FrameBufferPool {
    package static let keptLimit = 32
    package static let keptSizeLimit = 512 * 1024
    private var free: [FrameBuffer] = []

    package init() {}

    package var count: Int { free.count }

    package mutating func take(size: Int) -> FrameBuffer {
        if let last = free.last, last.reuse(size: size) {
            free.removeLast()
            return last
        }
        // rounded up, so that frames of nearly the same size share buffers
        let buffer = FrameBuffer(size: size <= Self.keptSizeLimit ? (size + 16_383) & ~16_383 : size)
        _ = buffer.reuse(size: size)
        return buffer
    }

    /// What does not fit the pool goes; where it is full, the larger of the two last ones stays.
    package mutating func give(_ buffer: FrameBuffer) {
        guard buffer.memory.count <= Self.keptSizeLimit else { return }
        if free.count < Self.keptLimit {
            free.append(buffer)
        } else if let last = free.last, last.memory.count < buffer.memory.count {
            free[free.count - 1] = buffer
        }
    }
}
