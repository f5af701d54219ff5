internal import MartletModel
internal import MartletReactor

/// The files of one partition's folder: opened through what bounds the descriptors of the process, failures said in
/// this target's words.
final class LogFiles {
    let disk: any Disk
    let descriptors: DescriptorCache
    /// While a log is loaded its folder is asked for its names many times, and ten thousand logs are loaded at once. What
    /// makes, renames or removes a name forgets them. Afterwards nothing changes here: the cleaner's thread shares it.
    private var listed: (folder: String, names: [String])?
    private var keepsNames = false

    init(disk: any Disk, descriptors: DescriptorCache) {
        self.disk = disk
        self.descriptors = descriptors
    }

    /// Names that are listed in the body are known from then on, while none of them changes through here.
    func keepingNames(_ body: () throws(LogError) -> Void) throws(LogError) {
        keepsNames = true
        defer { (keepsNames, listed) = (false, nil) }
        try body()
    }

    private func forgetNames() {
        if keepsNames { listed = nil }
    }

    func cached(_ file: CachedFile) throws(LogError) -> any DiskFile {
        try onDisk { () throws(SystemError) in try descriptors.file(file) }
    }

    func open(_ path: String, _ mode: OpenMode) throws(LogError) -> any DiskFile {
        if mode != .read, mode != .readWrite { forgetNames() }
        return try onDisk { () throws(SystemError) in try disk.open(path, mode) }
    }

    func status(_ path: String) throws(LogError) -> FileStatus? {
        try onDisk { () throws(SystemError) in try disk.status(path) }
    }

    func list(_ folder: String) throws(LogError) -> [String] {
        if let listed, listed.folder == folder { return listed.names }
        let names = try onDisk { () throws(SystemError) in try disk.list(folder) }
        if keepsNames { listed = (folder, names) }
        return names
    }

    func contents(_ path: String) throws(LogError) -> [UInt8]? {
        try onDisk { () throws(SystemError) in try disk.contents(path) }
    }

    func remove(_ path: String) throws(LogError) {
        forgetNames()
        try onDisk { () throws(SystemError) in try disk.remove(path) }
    }

    func rename(_ from: String, to: String) throws(LogError) {
        forgetNames()
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
