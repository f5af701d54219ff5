import MartletBasics
import MartletBroker
import MartletModel
import Testing

private func at(_ seconds: Double) -> Instant { Instant(nanoseconds: Int64((1_000_000 + seconds) * 1e9)) }

@Suite struct Rates {
    private let shape = RateShape(windows: 11, seconds: 1)

    @Test func aBurstWithinTheWindowsIsFree() {
        let windows = RateWindows(shape, loops: 1)
        windows.record(10_000, loop: 0, now: at(0))
        #expect(windows.throttle(adding: 0, bound: 1000, now: at(0)) == .zero)
        #expect(windows.throttle(adding: 5000, bound: 1000, now: at(0)) == .seconds(5))
    }

    @Test func whoWaitsForAnAmountMayHaveItAndNotBefore() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<200 {
            let windows = RateWindows(shape, loops: 3)
            var now = at(Double.random(in: 0..<10, using: &random))
            let bound = Double.random(in: 10..<10_000, using: &random)
            for _ in 0..<50 {
                let amount = Int64(Double.random(in: 0..<9, using: &random) * bound)
                let wait = windows.waitFor(amount, bound: bound, now: now)
                if wait > .milliseconds(1) {
                    let early = now + (wait - .milliseconds(1))
                    #expect(windows.throttle(adding: amount, bound: bound, now: early) > .zero)
                }
                now = now + wait
                #expect(windows.throttle(adding: amount, bound: bound, now: now) <= .nanoseconds(10))
                windows.record(amount, loop: Int.random(in: 0..<3, using: &random), now: now)
                now = now + .milliseconds(Int64.random(in: 0..<3000, using: &random))
            }
        }
    }

    @Test func anAmountBeyondAllWindowsIsWaitedForUntilNothingElseCounts() {
        let windows = RateWindows(shape, loops: 1)
        #expect(windows.waitFor(1_000_000, bound: 1, now: at(0.5)) == .zero)
        windows.record(1, loop: 0, now: at(0.5))
        #expect(windows.waitFor(1_000_000, bound: 1, now: at(2)) == .seconds(9))
    }

    @Test func overTimeNobodyWhoWaitsGetsMoreThanTheBound() {
        let windows = RateWindows(shape, loops: 2)
        var now = at(0), sum = 0
        while now < at(600) {
            windows.record(700, loop: sum / 700 % 2, now: now)
            sum += 700
            now = now + windows.throttle(adding: 0, bound: 1000, now: now) + .milliseconds(10)
        }
        // the first ten seconds' worth may come at once
        #expect((600_000...625_000).contains(sum), "\(sum)")
    }

    @Test func whatLiesBeforeAllWindowsCountsNoMore() {
        let windows = RateWindows(shape, loops: 2)
        windows.record(1_000_000, loop: 1, now: at(0))
        #expect(windows.total(now: at(10.5)).amount == 1_000_000)
        #expect(windows.total(now: at(11)).amount == 0)
        #expect(windows.throttle(adding: 0, bound: 1, now: at(11)) == .zero)
    }

    @Test func amountsBeyondAWordAndSettingsBeyondReasonStayWithinTheirBounds() {
        let windows = RateWindows(RateShape(windows: .max, seconds: .max), loops: 1)
        #expect(windows.shape.windows == RateShape.windowsLimit)
        for _ in 0..<3 { windows.record(.max, loop: 0, now: at(0)) }
        #expect(windows.total(now: at(0)).amount == 1 << 40 - 1)
        #expect(windows.throttle(adding: .max / 2, bound: 1e-9, now: at(0)) == Interval(nanoseconds: 1 << 61))
        let single = RateWindows(RateShape(windows: 1, seconds: 1), loops: 1)
        single.record(5, loop: 0, now: at(0))
        #expect(single.throttle(adding: 0, bound: 1, now: at(0)) == .seconds(4))
    }

    @Test func permitsAreSavedUpAndADebtIsPaidOff() {
        var bucket = MutationBucket(shape, bound: 2, now: at(0))
        bucket.take(25, bound: 2, now: at(0))
        #expect(bucket.debt(bound: 2, now: at(0)) == .milliseconds(2500))
        #expect(bucket.debt(bound: 2, now: at(2.5)) == .zero)
        bucket.take(1, bound: 2, now: at(2.5))
        #expect(bucket.debt(bound: 2, now: at(2.5)) == .milliseconds(500))
        // no more than for all windows but one
        bucket.take(20, bound: 2, now: at(1000))
        #expect(bucket.debt(bound: 2, now: at(1000)) == .zero)
        bucket.take(1, bound: 2, now: at(1000))
        #expect(bucket.debt(bound: 2, now: at(1000)) == .milliseconds(500))
    }

    // MARK: Connections

    private let none = ClientQuotas()

    @Test func connectionsBeyondTheBrokersRateComeLater() {
        var rates = ConnectionRates(shape)
        func judge(_ limit: Int32, _ own: Int32? = nil) -> ConnectionRates.Verdict {
            rates.judge("10.0.0.1", listener: "A", limit: limit, listenerLimit: own, none, now: at(0))
        }
        for _ in 0..<20 { #expect(judge(2) == .welcome) }
        #expect(judge(2) == .later(.milliseconds(500)))
        #expect(judge(.max) == .welcome)
        for _ in 0..<10 { #expect(judge(.max, 1) == .welcome) }
        #expect(judge(.max, 1) == .later(.seconds(1)))
        #expect(judge(0) == .later(.seconds(1)))
    }

    @Test func anAddressBeyondItsRateIsRefusedAndAnotherIsNot() {
        var rates = ConnectionRates(shape)
        let quotas = ClientQuotas([.address(.everyOther): [.connections: 1], .address(.named("10.0.0.9")): [.connections: 100]])
        func judge(_ peer: String, at second: Double = 0) -> ConnectionRates.Verdict {
            rates.judge(peer, listener: "A", limit: .max, listenerLimit: nil, quotas, now: at(second))
        }
        for _ in 0..<10 { #expect(judge("10.0.0.1") == .welcome) }
        for _ in 0..<5 { #expect(judge("::ffff:10.0.0.1") == .refused(.seconds(1))) }
        #expect(judge("10.0.0.2") == .welcome)
        for _ in 0..<500 { #expect(judge("10.0.0.9") == .welcome) }
        // what was refused has not counted
        #expect(judge("10.0.0.1", at: 11) == .welcome)
    }

    @Test func addressesThatComeOnceDoNotFillTheMemory() {
        var rates = ConnectionRates(shape)
        let quotas = ClientQuotas([.address(.everyOther): [.connections: 1e9]])
        for number in 0..<20_000 {
            let peer = "10.\(number >> 16).\(number >> 8 & 255).\(number & 255)"
            #expect(rates.judge(peer, listener: "A", limit: .max, listenerLimit: nil, quotas, now: at(0)) == .welcome)
        }
        #expect(rates.countedAddresses == ConnectionRates.addressesLimit + 1)
        _ = rates.judge("10.9.9.9", listener: "A", limit: .max, listenerLimit: nil, quotas, now: at(100))
        #expect(rates.countedAddresses == 1)
    }

    // MARK: Meters

    @Test func clientIDsThatComeOnceDoNotFillTheMemory() {
        let meters = QuotaMeters(.init(requests: shape, mutations: shape), loops: 1)
        let quotas = ClientQuotas([.client(.everyOther): [.producerBytes: 1]])
        for number in 0..<20_000 {
            meters.release(meters.hold(quotas, user: "u", clientID: Array("\(number)".utf8), now: at(0)), now: at(0))
        }
        #expect(meters.count == QuotaMeters.unusedLimit)
        meters.release(meters.hold(quotas, user: "u", clientID: [], now: at(100)), now: at(100))
        #expect(meters.count == 1)
    }

    @Test func aClientThatComesAgainAtOnceFindsWhatItHasUsed() throws {
        let meters = QuotaMeters(.init(requests: shape, mutations: shape), loops: 1)
        let quotas = ClientQuotas([.client(.everyOther): [.producerBytes: 1]])
        let first = meters.hold(quotas, user: "u", clientID: [65], now: at(0))
        first.produce!.meter.windows.record(100, loop: 0, now: at(0))
        meters.release(first, now: at(0))
        let changed = quotas.with(.client(.named("A")), [.producerBytes: 2, .consumerBytes: 3])
        let second = meters.hold(changed, user: "u", clientID: [65], now: at(1))
        #expect(second.produce?.value == 2)
        #expect(second.produce?.meter === first.produce?.meter)
        #expect(second.fetch?.value == 3 && second.requestTime == nil)
    }
}
