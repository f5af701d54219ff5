import Glibc
import MartletBasics
import MartletReactor
import Testing

private final class SteppedClock: MartletReactor.Clock, @unchecked Sendable {
    var wallMilliseconds: Int64 = 0
    var now: Instant { Instant(nanoseconds: wallMilliseconds * 1_000_000) }
}

@Suite struct StandardErrorLogTests {
    /// What a log of so many lines a second writes while `body` uses it.
    private func lines(
        _ limit: Int = 20, level: LogLevel = .info, _ body: (StandardErrorLog, SteppedClock) -> Void
    ) throws -> [String] {
        try withFolder { folder, disk in
            let descriptor = open(folder + "/log", O_CREAT | O_WRONLY | O_APPEND, 0o600)
            defer { close(descriptor) }
            let clock = SteppedClock()
            clock.wallMilliseconds = 1_795_260_153_123
            body(StandardErrorLog(level: level, linesASecond: limit, clock: clock, descriptor: descriptor), clock)
            let text = String(decoding: try disk.contents(folder + "/log")!, as: UTF8.self)
            return text.split(separator: "\n").map(String.init)
        }
    }

    @Test func anEventIsOneLineWithTimeLevelSubsystemMessageAndFields() throws {
        let lines = try lines { log, _ in
            let logger = Logger("network", to: log)
            logger.warning("refused", ("peer", "[::1]:9092"), ("reason", "says \"no\""), ("empty", ""))
        }
        #expect(
            lines == [#"2026-11-21T11:22:33.123Z WARN network refused peer=[::1]:9092 reason="says \"no\"" empty="""#])
    }

    @Test func whatAPeerSentCannotForgeALine() throws {
        let lines = try lines { log, _ in
            let logger = Logger("broker", to: log)
            logger.info("client\nERROR", ("id", "a\r\n2026 ERROR all is lost\u{1B}[2J"), ("path", #"c:\x y"#))
        }
        #expect(
            lines == [
                #"2026-11-21T11:22:33.123Z INFO broker client\nERROR "#
                    + #"id="a\r\n2026 ERROR all is lost\x1b[2J" path="c:\\x y""#
            ])
    }

    @Test func levelsHoldForOneSubsystemOrForAll() throws {
        let lines = try lines(level: .warning) { log, _ in
            let keeper = Logger("keeper", to: log), network = Logger("network", to: log)
            keeper.info("1")
            log.setLevel(.debug, of: "keeper")
            keeper.debug("2")
            network.info("3")
            log.setLevel(.error, of: "network")
            network.warning("4")
            log.setLevel(.debug)
            network.warning("5")
            log.setLevel(nil, of: "network")
            network.debug("6")
            log.setLevel(nil, of: "keeper")
            keeper.debug("7")
        }
        #expect(lines.map { $0.last } == ["2", "6", "7"])
    }

    @Test func aFloodOfOneMessageIsCutAndCountedWhileOthersAreWritten() throws {
        let lines = try lines(3) { log, clock in
            let logger = Logger("network", to: log)
            for number in 0..<10 { logger.info("again", ("number", String(number))) }
            logger.error("again")
            logger.info("other")
            clock.wallMilliseconds += 1000
            logger.info("again", ("number", "10"))
            for _ in 0..<5 { logger.info("again", ("number", "x")) }
            log.flush()
            log.flush()
        }
        #expect(
            lines.map { String($0.dropFirst(25)) } == [
                "INFO network again number=0", "INFO network again number=1", "INFO network again number=2",
                "ERROR network again", "INFO network other", "INFO network left out lines like: again left_out=7",
                "INFO network again number=10", "INFO network again number=x", "INFO network again number=x",
                "INFO network left out lines like: again left_out=3",
            ])
    }

    @Test func endlesslyDifferentMessagesAreBoundedToo() throws {
        let lines = try lines(5) { log, _ in
            for number in 0..<10_000 { Logger("network", to: log).info("message \(number)") }
            log.flush()
        }
        #expect(lines.count == StandardErrorLog.distinctMessagesLimit + 5 + 1)
        #expect(lines.last?.hasSuffix("left_out=\(10_000 - StandardErrorLog.distinctMessagesLimit - 5)") == true)
    }

    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"), (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
    ] as [(Int64, String)])
    func timesAreCalendarDatesInUTC(_ milliseconds: Int64, _ text: String) {
        var line: [UInt8] = []
        StandardErrorLog.append(time: milliseconds, to: &line)
        #expect(String(decoding: line, as: UTF8.self) == text)
    }
}

@Suite struct MachineTests {
    @Test func theLimitOfDescriptorsIsRaisedToWhatTheSystemAllows() async {
        await #expect(processExitsWith: .success) {
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            limit.rlim_cur = 64
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let raised = try DescriptorLimit.raise(to: 100), kept = try DescriptorLimit.raise(to: 50)
            precondition(raised == 100)
            precondition(kept == 100, "it is never lowered")
            let most = try DescriptorLimit.raise()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            precondition(most == Int64(limit.rlim_cur))
            precondition(most == min(Int64(clamping: limit.rlim_max), DescriptorLimit.most))
        }
    }

    @Test func memoryIsTold() throws {
        #expect(try #require(availableMemoryBytes()) > 64 << 20)
    }
}
