import Glibc
import MartletBasics
import MartletClient
import MartletReactor

/// Why a command ends without having done all that it was asked for.
struct CommandFault: Error {
    /// Nil where it was told already.
    var description: String?
    var status: ExitStatus

    init(_ description: String?, _ status: ExitStatus = .failed) {
        self.description = description
        self.status = status
    }

    init(outputFails code: Int32) {
        self.init("\(SystemError(errno: code, "write", "standard output"))")
    }
}

/// One run of a command that speaks to a cluster: its client, and where its results go.
///
/// A loop on the calling thread runs the command as a task. Nothing of the broker is set up for it.
final class Session: @unchecked Sendable {
    let arguments: CommandLineArguments
    let host: RealHost
    let client: Client
    let isJSON: Bool
    private var status = ExitStatus.done
    private var interruptsCount = 0
    private var interrupted: (() -> Void)?

    private init(_ arguments: CommandLineArguments, _ settings: ClientSettings) throws {
        self.arguments = arguments
        host = try RealHost(loops: 1, firstLoop: .callingThread, log: StandardErrorLog(level: .error))
        client = Client(host: host, loop: host.loops[0], settings: settings)
        isJSON = arguments.has("json")
    }

    var loop: any EventLoop { host.loops[0] }

    /// Runs the command and ends the process.
    static func run(
        _ arguments: CommandLineArguments, _ body: @escaping @Sendable (Session) async throws -> Void
    ) throws(CommandLineArguments.Fault) -> Never {
        let session: Session
        do {
            session = try Session(arguments, try ClientFlags.settings(arguments))
        } catch let fault as CommandLineArguments.Fault {
            throw fault
        } catch {
            Terminal.complain("\(Martlet.program): \(error)")
            exit(ExitStatus.failed.rawValue)
        }
        // a thread may still wait for standard input when the process ends: the host is left to it
        _ = Unmanaged.passRetained(session)
        session.loop.spawn {
            do {
                try await body(session)
            } catch {
                session.failed(error)
            }
            session.host.requestStop()
        }
        session.host.run()
        exit(session.status.rawValue)
    }

    private func failed(_ error: any Error) {
        switch error {
        case let fault as CommandFault:
            status = fault.status
            if let description = fault.description { complain(description) }
        case let fault as CommandLineArguments.Fault:
            status = .usage
            complain("\(fault)\nSee '\(Martlet.program) \(arguments.command) --help'.")
        case ClientError.unreachable(let reasons):
            status = .failed
            complain(
                """
                \(ClientError.unreachable(reasons))
                Is it running? 'martlet server' starts one; --bootstrap HOST:PORT names another.
                """)
        default:
            status = .failed
            complain("\(error)")
        }
    }

    // MARK: Saying

    /// Says what went wrong with a part of what was asked for; the rest goes on, and the command ends with 1.
    func complain(partly description: String) {
        complain(description)
        if status == .done { status = .failed }
    }

    private func complain(_ description: String) {
        let name = Terminal.isStyled(STDERR_FILENO) ? "\u{1B}[31m\(Martlet.program):\u{1B}[0m" : "\(Martlet.program):"
        Terminal.complain("\(name) \(description)")
    }

    /// Says something to a person that is no result.
    func remark(_ text: String) { Terminal.complain(text) }

    /// The result: a value for programs, or what people read.
    func show(_ json: @autoclosure () -> JSONValue, _ text: @autoclosure () -> String) {
        let written = isJSON ? Terminal.say(json().text) : Terminal.write(text())
        if case .failed(let code) = written { failed(CommandFault(outputFails: code)) }
    }

    /// Whether the first line of a table is set off.
    var isStyled: Bool { Terminal.isStyled(STDOUT_FILENO) }

    // MARK: Ctrl-C

    /// What the first Ctrl-C (or SIGTERM) does; a second one ends the process at once. Without this call, so does the
    /// first.
    func onInterrupt(_ work: @escaping () -> Void) {
        interrupted = work
        host.onSignals([SIGINT, SIGTERM]) { [self] _ in
            interruptsCount += 1
            if interruptsCount > 1 { exit(ExitStatus.interrupted.rawValue) }
            interrupted?()
        }
    }

    var isInterrupted: Bool { interruptsCount > 0 }
}
