import MartletBasics
import MartletChecker
import MartletReactor
import MartletSimulation

extension SwarmWorld {
    /// Wall clocks stay within half of what any setting waits for: what expires is tested elsewhere.
    private static let wallOffsetLimit = Interval.seconds(10 * 3600)
    /// A block that lasts longer than any session of a group.
    private static let blockSecondsLimit = 16

    /// Lets a fault fall, at once or somewhere in the burst; how the life is to end after the burst, where it is to.
    func inject(_ fault: FaultKind) -> LifeEnd? {
        record.note(.note("armed: \(fault.rawValue)"))
        let host = self.host
        switch fault {
        case .stop, .kill, .powerCut, .tornPage:
            record.fell(fault)
            return fault == .stop ? .stop : fault == .kill ? .kill : .powerCut
        case .killAtCall:
            host.kill(afterSeamCalls: random.below(2_000))
            arm(fault) { !host.isAlive }
        case .powerCutAtCall:
            host.powerCut(afterDiskOperations: random.below(200))
            arm(fault) { !host.isAlive }
        case .powerCutAtStart, .bitRot:
            cutsNextStart = fault == .powerCutAtStart
            return random.chance(1, in: 2) ? .kill : .powerCut
        case .writeError, .diskFull, .readError, .failedSync: return hurtDisk(fault)
        case .slowDisk, .coldCache: slowDown(fault)
        case .shortTransfers: return shorten()
        case .cut, .stall, .partition, .halfOpen, .reordering: hurtNetwork(fault)
        case .clockForward, .clockBack, .clockDrift: turnClocks(fault)
        case .pause:
            record.fell(fault)
            host.pause(for: .milliseconds(Int64(5 + random.below(3_000))))
        }
        return nil
    }

    private func arm(_ fault: FaultKind, _ hasFallen: @escaping () -> Bool) {
        armed = ArmedFault(kind: fault, hasFallen: hasFallen)
    }

    /// Where a count has risen since.
    private func arm(_ fault: FaultKind, onceMore count: @escaping @autoclosure () -> Int) {
        let before = count()
        arm(fault) { count() > before }
    }

    /// A call of the disk ran into a fault.
    func diskRefused(_ operation: DiskOperation, _ path: String, _ kind: SystemError.Kind) {
        diskFaultsCount += 1
        record.note(.note("the disk refuses \(operation) of \(path): \(kind)"))
        stage.storageFailsUntil = .max
        guard kind != .noSpace else {
            hurt.wasFull = true
            noteUnmade(path)
            return
        }
        if operation != .read { hurt.losesWrites = true }
        hurt.failed.formUnion((config.logDirs + [config.keeperDir]).filter { path == $0 || path.hasPrefix($0 + "/") })
    }

    /// What has never served is not there yet.
    private func noteUnmade(_ path: String) {
        let folder = path.split(separator: "/").dropLast().last ?? ""
        guard let dash = folder.lastIndex(of: "-"), let partition = Int(folder[folder.index(after: dash)...]) else { return }
        guard record.highWatermarks[Place(String(folder[..<dash]), partition)] == nil else { return }
        stage.unmade.insert(String(folder))
        stage.unmadeUntil = .max
    }

    /// Without its keeper, or any log directory, it can do nothing. No room is no reason: that comes again.
    var mayGiveUp: Bool { hurt.failed.contains(config.keeperDir) || hurt.failed.isSuperset(of: config.logDirs) }

    /// At once, or while the broker starts next; how the life is to end after the burst, where it is to.
    private func hurtDisk(_ fault: FaultKind) -> LifeEnd? {
        guard fault != .diskFull, random.chance(1, in: 4) else { return hurtDiskNow(fault) }
        hurtsNextStart = { [unowned self] in _ = hurtDiskNow(fault) }
        return random.chance(1, in: 2) ? .powerCut : .kill
    }

    private func hurtDiskNow(_ fault: FaultKind) -> LifeEnd? {
        let skip = random.below(16)
        let part = (config.logDirs.map { $0 + "/" } + ["/data/", "/data/keeper/", ".log", ".index"])
            .randomElement(using: &random)!
        arm(fault, onceMore: self.diskFaultsCount)
        switch fault {
        case .writeError: files.fail(.write, of: part, with: .inputOutput, skip: skip, times: 1 + random.below(3))
        case .readError:
            let part = config.logDirs[random.below(config.logDirs.count)]
            files.fail(.read, of: part, with: .inputOutput, skip: skip, times: 1 + random.below(3))
        case .failedSync:
            switch random.below(6) {
            case 0:
                // the whole file system is synced when the broker stops
                armed = nil
                failsNextStop = true
                return .stop
            case 1:
                let part = ["/data/", "/data/a", "/data/keeper"][random.below(3)]
                files.fail(.syncDirectory, of: part, with: .inputOutput, skip: random.below(3))
            default: files.fail(.sync, of: part, with: .inputOutput, skip: random.below(8))
            }
        default: files.capacityBytes = files.usedBytes + Int64(random.below(48 << 10))
        }
        guard random.chance(1, in: 2) else { return nil }
        return random.chance(1, in: 2) ? .powerCut : .kill
    }

    /// What is written in parts is also cut off between them.
    private func shorten() -> LifeEnd? {
        arm(.shortTransfers, onceMore: self.files.shortTransfersCount)
        files.shortOneIn = 1 + random.below(4)
        switch random.below(4) {
        case 0: host.powerCut(afterDiskOperations: 5 + random.below(200))
        case 1: return random.chance(1, in: 2) ? .powerCut : .kill
        default: break
        }
        return nil
    }

    private func slowDown(_ fault: FaultKind) {
        if fault == .coldCache {
            arm(fault, onceMore: self.files.coldReadsCount)
            files.dropCaches()
            return
        }
        arm(fault, onceMore: self.files.timedCallsCount)
        files.syncLatency = Latency(.milliseconds(2), .milliseconds(60), slowOneIn: 8, slowest: .milliseconds(400))
        files.writeLatency = Latency(.microseconds(20), .milliseconds(5), slowOneIn: 16, slowest: .milliseconds(100))
        files.readLatency = Latency(.microseconds(50), .milliseconds(20), slowOneIn: 16, slowest: .milliseconds(200))
    }

    private func hurtNetwork(_ fault: FaultKind) {
        // the one that something is lost for
        let machine = stage.unanswered.firstIndex { $0 > 0 } ?? random.below(clients.count)
        let client = clients[machine]
        if fault == .stall || fault == .partition, random.chance(1, in: 3) {
            blockEnd = simulated.now.nanoseconds + Int64(1_000 + random.below(Self.blockSecondsLimit * 1_000)) * 1_000_000
        }
        let network = simulated.network!
        switch fault {
        case .cut: if network.cut(client, host) > 0 { record.fell(fault) }
        case .stall:
            arm(fault, onceMore: network.heldCount)
            let isInwards = random.chance(1, in: 2)
            network.stall(from: isInwards ? client : host, to: isInwards ? host : client)
        case .partition:
            arm(fault, onceMore: network.heldCount)
            network.partition(client, host)
        case .halfOpen: if network.leaveHalfOpen(lostBy: client, keptBy: host) > 0 { record.fell(fault) }
        default:
            arm(fault, onceMore: network.messagesCount)
            simulated.network.latency = Latency(.microseconds(60), .milliseconds(40), slowOneIn: 4, slowest: .milliseconds(150))
        }
    }

    private func turnClocks(_ fault: FaultKind) {
        record.fell(fault)
        let limit = Self.wallOffsetLimit.milliseconds
        let jump = Int64(1 + random.below(5 * 3_600_000))
        switch fault {
        case .clockDrift: host.wallDrift = Int64(random.below(200_000)) - 100_000
        case .clockForward: host.wallOffset = .milliseconds(min(host.wallOffset.milliseconds + jump, limit))
        default: host.wallOffset = .milliseconds(max(host.wallOffset.milliseconds - jump, -limit))
        }
    }

    /// Turns over some bits in the files of the partition that may rot, between two lives of the broker.
    func rot() {
        for directory in config.logDirs {
            let folder = "\(directory)/rotting-0"
            guard let names = try? host.disk.list(folder), !names.isEmpty else { continue }
            let path = "\(folder)/\(names[random.below(names.count)])"
            guard let size = try? host.disk.status(path)?.size, size > 0 else { continue }
            record.fell(.bitRot)
            record.note(.note("bits of \(path), which has \(size) bytes, are turned over"))
            record.note(.damaged(Place("rotting", 0)))
            files.flipBits(path, in: 0..<size, count: 1 + random.below(3))
            return
        }
    }
}
