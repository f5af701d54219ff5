import CMartlet
import Glibc
import MartletBasics

/// The limit of descriptors that this process may have open: files and connections.
package enum DescriptorLimit {
    /// More than any setting of ours asks for; some systems allow a billion, and keep tables by it.
    package static let most: Int64 = 1_000_000

    /// Raises the limit as far as the system lets this process, at most to `wanted`; the limit that holds now.
    package static func raise(to wanted: Int64 = most) throws(SystemError) -> Int64 {
        let limit = martlet_raise_descriptor_limit(wanted)
        guard limit >= 0 else { throw SystemError(errno: Int32(limit), "getrlimit", "RLIMIT_NOFILE") }
        return limit
    }
}

/// The memory that there is for this process and others, in bytes, in use or not: what bounds are a part of. What a
/// control group allows, where that is less than the machine has. Nil where the system does not say.
package func availableMemoryBytes() -> Int64? {
    let bytes = martlet_memory_bytes()
    return bytes > 0 ? bytes : nil
}

extension ProcessUsage {
    static var current: ProcessUsage {
        var found = martlet_usage()
        martlet_process_usage(&found)
        func known(_ value: Int64) -> Int64? { value < 0 ? nil : value }
        var usage = ProcessUsage()
        usage.processorTime = known(found.processor_nanoseconds).map { Interval(nanoseconds: $0) }
        usage.residentBytes = known(found.resident_bytes)
        usage.anonymousBytes = known(found.anonymous_bytes)
        usage.virtualBytes = known(found.virtual_bytes)
        usage.openDescriptors = known(found.open_descriptors)
        usage.descriptorLimit = known(found.descriptor_limit)
        return usage
    }
}

/// The environment that this process was started with, each entry as `NAME=value`. To be read before there are threads.
package func environmentOfProcess() -> [[UInt8]] {
    var entries: [[UInt8]] = []
    while let entry = martlet_environment(entries.count) {
        entries.append(Array(UnsafeRawBufferPointer(start: entry, count: strlen(entry))))
    }
    return entries
}
