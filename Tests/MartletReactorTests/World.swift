import Glibc
import MartletBasics
import MartletReactor
import Synchronization

/// A host that is stopped when the body is done, also when it throws.
func withHost<R>(
    loops: Int = 1, log: any LogSink = SilentLog(), _ body: (RealHost) async throws -> R
) async throws -> R {
    let host = try RealHost(loops: loops, log: log)
    defer { host.stop() }
    return try await body(host)
}

/// A folder of its own, removed afterwards.
func withFolder<R>(_ body: (String, RealDisk) throws -> R) throws -> R {
    var template = Array("/tmp/martlet-reactor-XXXXXX".utf8CString)
    let path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    let disk = RealDisk()
    defer { try? disk.removeTree(path) }
    return try body(path, disk)
}

/// What happened, in order, told by any thread.
final class Record<Element: Sendable>: Sendable {
    private let elements = Mutex<[Element]>([])
    func note(_ element: Element) { elements.withLock { $0.append(element) } }
    var all: [Element] { elements.withLock { $0 } }
}

/// A value that one side sets and the other waits for.
final class Promise<Value: Sendable>: Sendable {
    private struct State {
        var value: Value?
        var waiter: UnsafeContinuation<Value, Never>?
    }
    private let state = Mutex(State())

    func keep(_ value: Value) {
        state.withLock { state in
            if let waiter = state.waiter {
                state.waiter = nil
                waiter.resume(returning: value)
            } else if state.value == nil {
                state.value = value
            }
        }
    }

    var value: Value {
        get async {
            await withUnsafeContinuation { continuation in
                state.withLock { state in
                    if let value = state.value {
                        continuation.resume(returning: value)
                    } else {
                        state.waiter = continuation
                    }
                }
            }
        }
    }
}

/// State that tests keep on one loop.
final class Confined<Value>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
}

/// Bytes whose every position can be told from every other nearby.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var random = SeededRandom(seed: seed)
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        for index in 0..<count { buffer[index] = UInt8(truncatingIfNeeded: random.next()) }
        filled = count
    }
}

/// A count that any thread raises.
final class Counter: Sendable {
    private let count = Atomic<Int>(0)
    func increase() { count.add(1, ordering: .relaxed) }
    var value: Int { count.load(ordering: .relaxed) }
}

func usleepAMillisecond() { usleep(1000) }
