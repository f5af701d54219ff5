/// Moments as people write them: ISO 8601, in UTC unless they say otherwise.
package enum WallTime {
    private static let dayMilliseconds: Int64 = 86_400_000
    /// The years 1 to 9999.
    private static let range: ClosedRange<Int64> = -62_135_596_800_000...253_402_300_799_999

    /// `2026-11-21T11:22:33.123Z`; the number itself where it lies outside of the years 1 to 9999.
    package static func text(_ milliseconds: Int64) -> String {
        guard range.contains(milliseconds) else { return "\(milliseconds)" }
        let days = floorDivide(milliseconds, dayMilliseconds)
        let rest = milliseconds - days * dayMilliseconds
        let (year, month, day) = date(days)
        let time = [(rest / 3_600_000, 2), (rest / 60_000 % 60, 2), (rest / 1000 % 60, 2), (rest % 1000, 3)]
        let parts = time.map { padded($0.0, $0.1) }
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T"
            + "\(parts[0]):\(parts[1]):\(parts[2]).\(parts[3])Z"
    }

    /// Milliseconds since 1970 of `YYYY-MM-DD`, with or without `Thh:mm`, `:ss`, `.fff` and `Z` or `±hh:mm`; nil for
    /// anything else, and for days that do not exist. A blank may stand for the T.
    package static func milliseconds(_ text: String) -> Int64? {
        var reader = Reader(Array(text.utf8))
        guard let year = reader.number(4), reader.take("-"), let month = reader.number(2), reader.take("-"),
            let day = reader.number(2), (1...9999).contains(year), (1...12).contains(month),
            (1...daysOfMonth(year, month)).contains(day)
        else { return nil }
        var milliseconds = days(year, month, day) * dayMilliseconds
        guard !reader.isAtEnd else { return milliseconds }
        guard reader.take("T") || reader.take(" ") else { return nil }
        guard let hour = reader.number(2), reader.take(":"), let minute = reader.number(2), hour < 24, minute < 60 else {
            return nil
        }
        milliseconds += (hour * 60 + minute) * 60_000
        if reader.take(":") {
            guard let second = reader.number(2), second < 60 else { return nil }
            milliseconds += second * 1000
            if reader.take(".") {
                guard let fraction = reader.fraction() else { return nil }
                milliseconds += fraction
            }
        }
        guard let zone = reader.zone(), reader.isAtEnd else { return nil }
        return milliseconds - zone
    }

    private struct Reader {
        private let bytes: [UInt8]
        private var position = 0

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        var isAtEnd: Bool { position == bytes.count }

        mutating func take(_ scalar: Unicode.Scalar) -> Bool {
            guard position < bytes.count, bytes[position] == UInt8(ascii: scalar) else { return false }
            position += 1
            return true
        }

        private mutating func digit() -> Int64? {
            guard position < bytes.count, (0x30...0x39).contains(bytes[position]) else { return nil }
            position += 1
            return Int64(bytes[position - 1]) - 0x30
        }

        mutating func number(_ digits: Int) -> Int64? {
            var value: Int64 = 0
            for _ in 0..<digits {
                guard let next = digit() else { return nil }
                value = value * 10 + next
            }
            return value
        }

        /// Milliseconds; what is finer is cut off.
        mutating func fraction() -> Int64? {
            guard var value = digit().map({ $0 * 100 }) else { return nil }
            var unit: Int64 = 10
            while let next = digit() {
                value += next * unit
                unit /= 10
            }
            return value
        }

        /// How far the zone is ahead of UTC, in milliseconds.
        mutating func zone() -> Int64? {
            if isAtEnd || take("Z") { return 0 }
            let sign: Int64 = take("-") ? -1 : 1
            guard sign < 0 || take("+"), let hours = number(2), hours < 24 else { return nil }
            if isAtEnd { return sign * hours * 3_600_000 }
            _ = take(":")
            guard let minutes = number(2), minutes < 60 else { return nil }
            return sign * (hours * 60 + minutes) * 60_000
        }
    }

    // MARK: The calendar

    private static func floorDivide(_ a: Int64, _ b: Int64) -> Int64 { a >= 0 ? a / b : -((-a + b - 1) / b) }

    private static func padded(_ number: Int64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    private static func daysOfMonth(_ year: Int64, _ month: Int64) -> Int64 {
        let next = month == 12 ? days(year + 1, 1, 1) : days(year, month + 1, 1)
        return next - days(year, month, 1)
    }

    /// Days since 1970 of a date of the Gregorian calendar; years begin in March, so that the leap day is the last.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let shifted = month > 2 ? year : year - 1
        let era = floorDivide(shifted, 400)
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    /// The date of the Gregorian calendar (E. M. Reingold and N. Dershowitz, Calendrical Calculations): 400 years have
    /// 146,097 days.
    package static func date(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = floorDivide(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }
}
