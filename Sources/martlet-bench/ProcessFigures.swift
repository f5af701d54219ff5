import MartletReactor

/// What the system says of a process, by the files of `/proc`.
struct ProcessFigures {
    /// The unit of times in `/proc`: a hundredth of a second on every Linux, whatever the kernel ticks at.
    private static let ticksPerSecond = 100.0
    /// What is read of a file; they are shorter.
    private static let bytesLimit = 8192

    let disk: any Disk
    /// A process id, or `self`.
    let process: String

    /// The seconds that the process has computed, for itself and in the kernel, all its threads together.
    func cpuSeconds() throws(BenchFault) -> Double {
        // the second field is the program's name in parentheses, and may hold anything
        let text = try text(of: "stat")
        guard let name = text.lastIndex(of: ")") else { throw unreadable("stat") }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
            throw unreadable("stat")
        }
        return (user + system) / Self.ticksPerSecond
    }

    /// Megabytes of memory of its own, without the files and libraries that it maps.
    func anonymousMegabytes() throws(BenchFault) -> Double {
        for line in try text(of: "status").split(separator: "\n") where line.hasPrefix("RssAnon:") {
            let fields = line.split { $0 == " " || $0 == "\t" }
            guard fields.count > 1, let kibibytes = Double(fields[1]) else { break }
            return kibibytes * 1024 / 1_000_000
        }
        throw unreadable("status")
    }

    private func unreadable(_ file: String) -> BenchFault {
        BenchFault("/proc/\(process)/\(file) does not say what it says on Linux")
    }

    private func text(of file: String) throws(BenchFault) -> String {
        let path = "/proc/\(process)/\(file)"
        do {
            let open = try disk.open(path, .read)
            defer { open.close() }
            var count = 0
            var failure: SystemError?
            var bytes = [UInt8](repeating: 0, count: Self.bytesLimit)
            bytes.withUnsafeMutableBytes { buffer in
                do throws(SystemError) { count = try open.read(into: buffer, at: 0) } catch { failure = error }
            }
            if let failure { throw failure }
            return String(decoding: bytes[..<count], as: UTF8.self)
        } catch {
            throw BenchFault("cannot look at the server's process (\(error)); has it ended?")
        }
    }
}
