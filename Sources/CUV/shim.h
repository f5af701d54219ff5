#pragma once
#include <uv.h>

/// Has the loop count the time that it waits for events. An option of libuv's variadic call, which Swift cannot make.
static inline int martlet_uv_count_idle_time(uv_loop_t *loop) { return uv_loop_configure(loop, UV_METRICS_IDLE_TIME); }
