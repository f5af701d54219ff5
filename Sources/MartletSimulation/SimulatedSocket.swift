internal import MartletBasics
package import MartletReactor

/// One direction of a connection: what was sent and has not been received yet, on the way or arrived.
final class Pipe {
    enum Parcel {
        case bytes([UInt8])
        /// The sender sends no more.
        case end
        /// The sender knows nothing of this connection (any more).
        case reset
    }

    private let world: SimulatedWorld
    private let from: String
    private let to: String
    /// Sent and not received.
    private(set) var count = 0
    private var lastArrival: Int64 = 0
    /// What a partition holds back, in order.
    private var held: [Parcel] = []
    weak var receiver: SimulatedSocket?
    weak var sender: SimulatedSocket?
    /// The receiver's machine has lost power: what arrives is lost, and nobody says so.
    var isLost = false

    init(world: SimulatedWorld, from: String, to: String) {
        self.world = world
        self.from = from
        self.to = to
    }

    var room: Int { max(world.network.pipeBytesLimit - count, 0) }

    func took(_ bytesCount: Int) { count -= bytesCount }

    /// Sends bytes that fit, in pieces as the network cuts them.
    func send(_ bytes: UnsafeRawBufferPointer) {
        count += bytes.count
        var start = 0
        while start < bytes.count {
            let left = bytes.count - start
            let draw = world.network.random.next()
            var size = left
            if left > 1, draw & 3 == 0 { size = 1 + Int((draw >> 8) % UInt64(left)) }
            if left > 1, draw & 127 == 1 { size = 1 }
            dispatch(.bytes([UInt8](bytes[start..<(start + size)])), delay: 0)
            start += size
        }
    }

    func send(_ parcel: Parcel, delay: Int64 = 0) { dispatch(parcel, delay: delay) }

    private func dispatch(_ parcel: Parcel, delay: Int64) {
        let travel = world.network.delay(from: from, to: to) + delay
        lastArrival = max(world.now.nanoseconds + travel, lastArrival + 1)
        world.post(at: lastArrival) { [self] in arrive(parcel) }
    }

    private func arrive(_ parcel: Parcel) {
        if !held.isEmpty || world.network.isBlocked(from: from, to: to) {
            held.append(parcel)
            world.network.heldCount += 1
        } else {
            hand(parcel)
        }
    }

    private func hand(_ parcel: Parcel) {
        if isLost { return }
        if let receiver, !receiver.isClosed { return receiver.arrive(parcel) }
        // nobody is there any more to receive it, and the sender learns that
        if case .bytes = parcel { sender?.inbound.send(.reset) }
    }

    /// The block may be lifted: what was held back is sent again.
    func releaseHeld() {
        guard !held.isEmpty, !world.network.isBlocked(from: from, to: to) else { return }
        world.post(after: world.network.delay(from: from, to: to)) { [self] in
            guard !world.network.isBlocked(from: from, to: to) else { return }
            let parcels = held
            held = []
            for parcel in parcels { hand(parcel) }
        }
    }
}

/// One end of a simulated connection.
package final class SimulatedSocket: StreamSocket, @unchecked Sendable {
    package let local: SocketAddress
    package let peer: SocketAddress
    let number: Int
    let process: SimulatedProcess
    let inbound: Pipe
    private let outbound: Pipe
    private let world: SimulatedWorld
    private let subject: Subject
    private var place: Int
    private(set) weak var other: SimulatedSocket?

    private var loop: SimulatedLoop?
    private var ready: ((Readiness) -> Void)?
    private var interest: Readiness = []
    private var isQueued = false
    private var hasToldHangUp = false

    private var arrived: [[UInt8]] = []
    private var head = 0
    private var headOffset = 0
    private var hasEnded = false
    private var hasFinished = false
    private(set) var isClosed = false
    private(set) var isReset = false

    /// A send may take less than there is room for, as a real one does: once in so many times.
    private static let shortSendOneIn = 16
    /// A socket counts as writable when this part of its pipe is free.
    private static let writablePart = 4

    private init(
        world: SimulatedWorld, process: SimulatedProcess, local: SocketAddress, peer: SocketAddress,
        inbound: Pipe, outbound: Pipe
    ) {
        self.world = world
        self.process = process
        self.local = local
        self.peer = peer
        self.inbound = inbound
        self.outbound = outbound
        number = world.network.takeSocketNumber()
        subject = Subject("\(process.name)/socket-\(number)")
        place = process.sockets.count
        inbound.receiver = self
        outbound.sender = self
        process.sockets.append(self)
    }

    static func makePair(
        world: SimulatedWorld, near: (SimulatedProcess, SocketAddress), far: (SimulatedProcess, SocketAddress)
    ) -> (SimulatedSocket, SimulatedSocket) {
        let away = Pipe(world: world, from: near.0.address, to: far.0.address)
        let back = Pipe(world: world, from: far.0.address, to: near.0.address)
        let a = SimulatedSocket(
            world: world, process: near.0, local: near.1, peer: far.1, inbound: back, outbound: away)
        let b = SimulatedSocket(
            world: world, process: far.0, local: far.1, peer: near.1, inbound: away, outbound: back)
        a.other = b
        b.other = a
        return (a, b)
    }

    // MARK: Readiness

    package func attach(to loop: any EventLoop, ready: @escaping (Readiness) -> Void) {
        guard process.isAlive, !isClosed else { return }
        guard let simulated = loop as? SimulatedLoop else {
            preconditionFailure("simulated sockets are served by simulated loops")
        }
        precondition(self.loop == nil, "a socket belongs to one loop for life")
        precondition(simulated.isCurrent, "a socket is attached on its loop")
        self.loop = simulated
        self.ready = ready
        queueIfReady()
    }

    private func checkLoop() {
        precondition(loop?.isCurrent != false || !process.isAlive, "a socket is used on its loop only")
    }

    package func watch(_ interest: Readiness) {
        checkLoop()
        self.interest = interest
        queueIfReady()
    }

    private var due: Readiness {
        var due: Readiness = []
        if interest.contains(.readable), head < arrived.count || hasEnded || isReset { due.insert(.readable) }
        if interest.contains(.writable), isReset || isWritable { due.insert(.writable) }
        if !hasToldHangUp, hasEnded || isReset { due.insert(.hungUp) }
        return due
    }

    private var isWritable: Bool { outbound.room >= world.network.pipeBytesLimit / Self.writablePart }

    private func queueIfReady() {
        guard !isQueued, let loop, ready != nil, !due.isEmpty else { return }
        isQueued = true
        loop.arrive(self)
    }

    /// In a turn of its loop.
    func tellReadiness() {
        isQueued = false
        let due = due
        guard let ready, !due.isEmpty else { return }
        if due.contains(.hungUp) { hasToldHangUp = true }
        world.note(.readiness, subject, UInt64(due.rawValue))
        ready(due)
        queueIfReady()
    }

    // MARK: Receiving

    func arrive(_ parcel: Pipe.Parcel) {
        if isReset { return }
        switch parcel {
        case .bytes(let bytes):
            world.note(.arrival, subject, bytes.withUnsafeBytes { UInt64(crc32c($0)) } &+ UInt64(bytes.count) << 32)
            arrived.append(bytes)
        case .end:
            world.note(.end, subject, 0)
            hasEnded = true
        case .reset:
            return reset()
        }
        queueIfReady()
    }

    /// The connection is gone; what had arrived and was not received is gone with it.
    func reset() {
        guard !isReset else { return }
        world.note(.reset, subject, 0)
        isReset = true
        arrived = []
        head = 0
        queueIfReady()
    }

    package func receive(
        into first: UnsafeMutableRawBufferPointer, _ second: UnsafeMutableRawBufferPointer
    ) -> Transfer {
        checkLoop()
        process.passSeam()
        guard process.isAlive, !isClosed, !isReset else { return .ended }
        guard head < arrived.count else { return hasEnded ? .ended : .wouldBlock }
        precondition(first.count + second.count > 0, "there is room to receive into")
        let count = take(into: first)
        let total = count == first.count ? count + take(into: second) : count
        let wasFull = !isPeerWritable
        inbound.took(total)
        if wasFull, isPeerWritable { tellWindow() }
        return .moved(total)
    }

    private var isPeerWritable: Bool { inbound.room >= world.network.pipeBytesLimit / Self.writablePart }

    /// The sender learns that there is room again, a message later.
    private func tellWindow() {
        guard let other else { return }
        let travel = world.network.delay(from: process.address, to: other.process.address)
        world.post(after: travel) { other.queueIfReady() }
    }

    private func take(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        while done < buffer.count, head < arrived.count {
            let count = min(buffer.count - done, arrived[head].count - headOffset)
            arrived[head].withUnsafeBytes { bytes in
                buffer[done..<(done + count)].copyBytes(from: bytes[headOffset..<(headOffset + count)])
            }
            done += count
            headOffset += count
            guard headOffset == arrived[head].count else { break }
            arrived[head] = []
            head += 1
            headOffset = 0
        }
        if head == arrived.count {
            arrived.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64, head * 2 > arrived.count {
            arrived.removeFirst(head)
            head = 0
        }
        return done
    }

    // MARK: Sending

    /// How many of so many bytes go now; nil where none do, and why.
    private func admit(_ count: Int) -> (count: Int, refusal: Transfer?) {
        checkLoop()
        process.passSeam()
        guard process.isAlive, !isClosed, !isReset, !hasFinished else { return (0, .ended) }
        precondition(count > 0, "something is sent")
        let room = outbound.room
        guard room > 0 else { return (0, .wouldBlock) }
        let fits = min(count, room)
        guard fits > 1, world.network.random.chance(1, in: Self.shortSendOneIn) else { return (fits, nil) }
        return (1 + world.network.random.below(fits), nil)
    }

    package func send(_ bytes: UnsafeRawBufferPointer, more: Bool) -> Transfer {
        let (count, refusal) = admit(bytes.count)
        if let refusal { return refusal }
        outbound.send(UnsafeRawBufferPointer(rebasing: bytes.prefix(count)))
        return .moved(count)
    }

    package func send(
        _ file: any DiskFile, at offset: Int64, count: Int, more: Bool
    ) throws(SystemError) -> Transfer {
        let (count, refusal) = admit(count)
        if let refusal { return refusal }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        defer { buffer.deallocate() }
        let found = try file.read(into: buffer, at: offset)
        guard found > 0 else {
            throw SystemError(
                .inputOutput, code: 0, operation: "sendfile", subject: file.path, reason: "the file ends before the range")
        }
        outbound.send(UnsafeRawBufferPointer(rebasing: buffer.prefix(found)))
        return .moved(found)
    }

    /// Sends no more, and goes on receiving: for clients of tests, since the seam has no such call.
    package func finishSending() {
        guard process.isAlive, !isClosed, !isReset, !hasFinished else { return }
        hasFinished = true
        outbound.send(.end)
    }

    // MARK: Closing

    package func close() {
        guard process.isAlive, !isClosed else { return }
        checkLoop()
        leave(.end)
    }

    /// Closed by the system before anybody accepted it.
    func abort() {
        guard !isClosed else { return }
        leave(.reset)
    }

    /// The process is gone. Its system ends the connection, or, where the machine lost power, nobody does: the peer
    /// finds out later.
    func processEnded(silently: Bool) {
        guard !isClosed else { return }
        if silently {
            let silence = UInt64(max(world.network.powerCutSilence.nanoseconds, 1))
            inbound.isLost = true
            leave(nil)
            let late = Int64(world.network.random.next() % silence)
            if !isReset { outbound.send(.reset, delay: late) }
        } else {
            leave(world.network.random.chance(1, in: 2) ? .end : .reset)
        }
    }

    private func leave(_ parcel: Pipe.Parcel?) {
        isClosed = true
        let unread = head < arrived.count
        arrived = []
        head = 0
        let dropped = ready
        ready = nil
        process.sockets.swapAt(place, process.sockets.count - 1)
        process.sockets[place].place = place
        process.sockets.removeLast()
        withExtendedLifetime(dropped) {}
        guard let parcel, !isReset else { return }
        // closing what was not read to its end resets the connection, as TCP does
        if unread { return outbound.send(.reset) }
        if case .end = parcel, hasFinished { return }
        outbound.send(parcel)
    }
}
