public import Synchronization

#if THREAD_SANITIZER
    // The part of `Mutex` that waits lies in a library that is not built with the sanitizer: who had to wait for the lock
    // would seem not to have taken it. These tell the sanitizer what it cannot see.
    @_silgen_name("__tsan_acquire") @usableFromInline func threadSanitizerAcquire(_ address: UnsafeRawPointer)
    @_silgen_name("__tsan_release") @usableFromInline func threadSanitizerRelease(_ address: UnsafeRawPointer)
#endif

/// A `Mutex` beside the state it guards, for state that lies in the fields of one final class.
///
/// The class is then `@unchecked Sendable`, and its comment says which fields the lock guards. Held for microseconds;
/// never across an `await` or a call that may wait.
public struct Lock: ~Copyable, Sendable {
    @usableFromInline let mutex = Mutex(())

    @inlinable public init() {}

    @inlinable public borrowing func withLock<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        try mutex.withLock { (_) throws(E) -> R in
            #if THREAD_SANITIZER
                let address = withUnsafePointer(to: mutex) { UnsafeRawPointer($0) }
                threadSanitizerAcquire(address)
                defer { threadSanitizerRelease(address) }
            #endif
            return try body()
        }
    }
}
