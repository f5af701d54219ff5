internal import MartletModel
internal import MartletReactor

/// The files of one partition's folder: opened through what bounds the descriptors of the process, failures said in
/// this target's words.
struct LogFiles {
    let disk: any Disk
    let descriptors: DescriptorCache

    func cached(_ file: CachedFile) throws(LogError) -> any DiskFile {
        try onDisk { () throws(SystemError) in try descriptors.file(file) }
    }

    func open(_ path: String, _ mode: OpenMode) throws(LogError) -> any DiskFile {
        try onDisk { () throws(SystemError) in try disk.open(path, mode) }
    }

    func status(_ path: String) throws(LogError) -> FileStatus? {
        try onDisk { () throws(SystemError) in try disk.status(path) }
    }

    func list(_ folder: String) throws(LogError) -> [String] {
        try onDisk { () throws(SystemError) in try disk.list(folder) }
    }

    func contents(_ path: String) throws(LogError) -> [UInt8]? {
        try onDisk { () throws(SystemError) in try disk.contents(path) }
    }

    func remove(_ path: String) throws(LogError) {
        try onDisk { () throws(SystemError) in try disk.remove(path) }
    }

    func rename(_ from: String, to: String) throws(LogError) {
        try onDisk { () throws(SystemError) in try disk.rename(from, to: to) }
    }

    func read(_ file: any DiskFile, into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError)
        -> Int
    {
        try onDisk { () throws(SystemError) in try file.read(into: buffer, at: offset) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, to file: any DiskFile, at offset: Int64) throws(LogError) {
        try onDisk { () throws(SystemError) in try file.write(bytes, at: offset) }
    }

    func write(_ bytes: [UInt8], to file: any DiskFile, at offset: Int64) throws(LogError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try file.write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw .storage(failure) }
    }

    func truncate(_ file: any DiskFile, to size: Int64) throws(LogError) {
        try onDisk { () throws(SystemError) in try file.truncate(to: size) }
    }

    func size(_ file: any DiskFile) throws(LogError) -> Int64 {
        try onDisk { () throws(SystemError) in try file.size() }
    }
}
