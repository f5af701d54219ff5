import MartletBasics

/// What a figure could be at most, or at least: what the same machine did in the same run with nothing but what is needed.
enum Limit {
    case least(Double)
    case most(Double)

    var value: Double {
        switch self {
        case .least(let value), .most(let value): value
        }
    }

    /// How near a figure comes to it: 1 is there.
    func share(of figure: Double) -> Double {
        switch self {
        case .least(let least): figure > 0 ? least / figure : 0
        case .most(let most): most > 0 ? figure / most : 0
        }
    }
}

/// What a case of scale found: a figure, and what stands beside it.
final class ScaleFigures {
    struct Further {
        var name: String
        var figure: Double
        var limit: Limit?
        var beside = ""
    }

    let figure: Double
    let limit: Limit?
    /// What the limit is.
    let beside: String
    let seconds: Double
    let cpuSeconds: Double
    let megabytes: Double
    let further: [Further]

    init(
        figure: Double, limit: Limit? = nil, beside: String = "", seconds: Double, cpuSeconds: Double, megabytes: Double,
        further: [Further] = []
    ) {
        self.figure = figure
        self.limit = limit
        self.beside = beside
        self.seconds = seconds
        self.cpuSeconds = cpuSeconds
        self.megabytes = megabytes
        self.further = further
    }

    var json: JSONValue {
        [
            "figure": .double(figure), "limit": Self.value(limit), "of_limit": Self.share(limit, figure),
            "beside": .string(beside), "seconds": .double(seconds), "server_cpu_seconds": .double(cpuSeconds),
            "server_anonymous_megabytes": .double(megabytes),
            "further": .array(
                further.map { one in
                    [
                        "name": .string(one.name), "figure": .double(one.figure), "limit": Self.value(one.limit),
                        "of_limit": Self.share(one.limit, one.figure), "beside": .string(one.beside),
                    ]
                }),
        ]
    }

    private static func value(_ limit: Limit?) -> JSONValue { limit.map { .double($0.value) } ?? .null }

    private static func share(_ limit: Limit?, _ figure: Double) -> JSONValue {
        limit.map { .double($0.share(of: figure)) } ?? .null
    }
}
