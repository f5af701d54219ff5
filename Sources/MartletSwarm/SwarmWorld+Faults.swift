import MartletBasics
import MartletChecker
import MartletSimulation

extension SwarmWorld {
    /// Wall clocks stay within half of what any setting waits for: what expires is tested elsewhere.
    private static let wallOffsetLimit = Interval.seconds(10 * 3600)
    /// A block that lasts longer than any session of a group.
    private static let blockSecondsLimit = 16

    /// Lets a fault fall, at once or somewhere in the burst; how the life is to end after the burst, where it is to.
    func inject(_ fault: FaultKind) -> LifeEnd? {
        if fault != .bitRot { record.fell(fault) }
        if fault.hurtsDisk { isDiskHurt = true }
        switch fault {
        case .stop: return .stop
        case .kill: return .kill
        case .killAtCall: host.kill(afterSeamCalls: random.below(2_000))
        case .powerCut, .tornPage: return .powerCut
        case .powerCutAtCall: host.powerCut(afterDiskOperations: random.below(200))
        case .powerCutAtStart: return random.chance(1, in: 2) ? .kill : .powerCut
        case .bitRot: return random.chance(1, in: 2) ? .kill : .powerCut
        case .writeError, .diskFull, .readError, .failedSync: return hurtDisk(fault)
        case .slowDisk, .coldCache: slowDown(fault)
        case .cut, .stall, .partition, .halfOpen, .reordering: hurtNetwork(fault)
        case .clockForward, .clockBack, .clockDrift: turnClocks(fault)
        case .pause: host.pause(for: .milliseconds(Int64(5 + random.below(3_000))))
        }
        return nil
    }

    private func hurtDisk(_ fault: FaultKind) -> LifeEnd? {
        let skip = random.below(40)
        let part = ["/data/", "/data/a/", "/data/keeper/", ".log", ".index"][random.below(5)]
        switch fault {
        case .writeError: files.fail(.write, of: part, with: .inputOutput, skip: skip, times: 1 + random.below(3))
        case .readError: files.fail(.read, of: "/data/a/", with: .inputOutput, skip: skip, times: 1 + random.below(3))
        case .failedSync:
            let operations: [DiskOperation] = [.sync, .sync, .syncDirectory, .syncFileSystem]
            files.fail(operations[random.below(4)], of: part, with: .inputOutput, skip: random.below(12))
        default: files.capacityBytes = files.usedBytes + Int64(random.below(48 << 10))
        }
        return random.chance(1, in: 2) ? .powerCut : .kill
    }

    private func slowDown(_ fault: FaultKind) {
        if fault == .coldCache {
            files.dropCaches()
            return
        }
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
        switch fault {
        case .cut: simulated.network.cut(client, host)
        case .stall:
            let isInwards = random.chance(1, in: 2)
            simulated.network.stall(from: isInwards ? client : host, to: isInwards ? host : client)
        case .partition: simulated.network.partition(client, host)
        case .halfOpen: simulated.network.leaveHalfOpen(lostBy: client, keptBy: host)
        default:
            simulated.network.latency = Latency(.microseconds(60), .milliseconds(40), slowOneIn: 4, slowest: .milliseconds(150))
        }
    }

    private func turnClocks(_ fault: FaultKind) {
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
            // That file has no checksum: with another bit it names another topic, and the log is put aside as a stranger's.
            guard let names = try? host.disk.list(folder).filter({ $0 != "partition.metadata" }), !names.isEmpty else {
                continue
            }
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
