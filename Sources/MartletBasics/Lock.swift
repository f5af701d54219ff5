public import Synchronization

/// A `Mutex` beside the state it guards, for state that lies in the fields of one final class.
///
/// The class is then `@unchecked Sendable`, and its comment says which fields the lock guards. Held for microseconds;
/// never across an `await` or a call that may wait.
public struct Lock: ~Copyable, Sendable {
    @usableFromInline let mutex = Mutex(())

    @inlinable public init() {}

    @inlinable public borrowing func withLock<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        try mutex.withLock { (_) throws(E) -> R in try body() }
    }
}
