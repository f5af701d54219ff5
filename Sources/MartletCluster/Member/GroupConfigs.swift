import MartletBasics
import MartletModel

/// What is set on groups, as last read from the tree; from any loop.
final class GroupConfigs: @unchecked Sendable {
    private let lock = Lock()
    // guarded by the lock:
    private var byName: [String: TopicConfigResolver.Overrides] = [:]

    var current: [String: TopicConfigResolver.Overrides] { lock.withLock { byName } }

    subscript(name: String) -> TopicConfigResolver.Overrides {
        get { lock.withLock { byName[name] ?? [] } }
        set { lock.withLock { byName[name] = newValue.isEmpty ? nil : newValue } }
    }
}
