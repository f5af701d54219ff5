/// Reads one input after the other as a target does. Most targets keep nothing from one to the next; a broker that handles
/// requests does, for it is too slow to start for each.
///
/// Confined to one thread.
package final class FuzzSession {
    /// What was done since the target began anew, as an input that does it again.
    package enum Progress {
        case beganAnew
        case did([UInt8])
    }

    private let target: FuzzTarget
    private var broker: FuzzedBroker?
    private let onProgress: ((Progress) -> Void)?

    package init(_ target: FuzzTarget, onProgress: ((Progress) -> Void)? = nil) {
        self.target = target
        self.onProgress = onProgress
    }

    package func run(_ bytes: UnsafeRawBufferPointer) {
        guard target == .handlers else { return target.run(bytes) }
        var input = FuzzInput(bytes)
        let broker = broker ?? FuzzedBroker(onProgress: onProgress)
        broker.run(&input)
        self.broker = broker.isWorn ? nil : broker
        if self.broker == nil { broker.end() }
    }

    /// The last input was read. A broker that was fed is stopped, and must start again.
    package func end() {
        broker?.end()
        broker = nil
    }
}
