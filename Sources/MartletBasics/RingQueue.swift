/// A first-in-first-out queue in one array that wraps around: no allocation while it does not outgrow its memory.
public struct RingQueue<Element> {
    @usableFromInline var slots: ContiguousArray<Element?>
    @usableFromInline var head = 0
    public var count = 0

    @inlinable public init() { slots = [] }

    @inlinable public var isEmpty: Bool { count == 0 }
    @inlinable public var first: Element? { count == 0 ? nil : slots[head] }

    /// The element at a place counted from the head.
    @inlinable public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "only what is queued can be looked at")
            return slots[(head &+ index) & (slots.count &- 1)]!
        }
        _modify {
            precondition(index >= 0 && index < count, "only what is queued can be changed")
            yield &slots[(head &+ index) & (slots.count &- 1)]!
        }
    }

    @inlinable public mutating func append(_ element: Element) {
        if count == slots.count { grow() }
        slots[(head &+ count) & (slots.count &- 1)] = element
        count &+= 1
    }

    @inlinable @discardableResult public mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = (head &+ 1) & (slots.count &- 1)
        count &-= 1
        return element
    }

    public mutating func removeAll() {
        while popFirst() != nil {}
    }

    @usableFromInline @inline(never)
    mutating func grow() {
        var larger = ContiguousArray<Element?>(repeating: nil, count: Swift.max(8, slots.count * 2))
        for index in 0..<count { larger[index] = slots[(head + index) & (slots.count - 1)] }
        slots = larger
        head = 0
    }
}
