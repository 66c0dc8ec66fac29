/* Streams, events, graphs and copies. Work is an object that can run more than once, since graphs replay it.
 *
 * Eager: a call runs its work before it returns. Lazy: each stream keeps a queue, and whoever waits lets heads of queues run, chosen
 * among those whose events have happened, until what it waits for is done; a query runs one piece, so that polling ends. So host code
 * that reuses a buffer too early or forgets an event meets the worst legal order. The NULL stream waits for all streams that were not
 * made with cudaStreamNonBlocking, and runs at once.
 *
 * An event's record is a flag of its own, shared by those who wait for it: recording again does not disturb them. In a capture, work
 * becomes a node after the nodes that its stream, or an event it waited for, stands at. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "engine/cuda/emu/core.h"

namespace {
struct emu_work {
    virtual ~emu_work() {}
    virtual void run() = 0;
    virtual bool is_host() const { return false; }
};
typedef std::shared_ptr<emu_work> work_ref;
typedef std::shared_ptr<bool> flag_ref;
struct item {
    work_ref work;
    flag_ref sets, needs;
};
struct node {
    work_ref work;
    std::vector<int> after;
};
typedef std::vector<node> node_list;
struct capture {
    std::shared_ptr<node_list> nodes;
    cudaStream_t origin;
    bool ended;
};
} // namespace

struct CUstream_st {
    std::deque<item> queue;
    bool blocking = true;
    std::shared_ptr<capture> to;
    std::vector<int> at; /* nodes that the next one comes after */
};
struct CUevent_st {
    flag_ref flag;
    std::shared_ptr<capture> from;
    std::vector<int> at;
};
struct CUgraph_st { std::shared_ptr<node_list> nodes; };
struct CUgraphExec_st { std::shared_ptr<node_list> nodes; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static std::vector<cudaStream_t> &streams = *new std::vector<cudaStream_t>; /* outlives the last caller */
static std::map<const void *, size_t> allowed;
static cudaError_t last_error;
static emu_random choice = {88172645463325252u};

namespace {
struct locked {
    locked() { pthread_mutex_lock(&lock); }
    ~locked() { pthread_mutex_unlock(&lock); }
};
}
static cudaError_t fail(cudaError_t e) {
    if (e) last_error = e;
    return e;
}

static void run_work(emu_work *w) {
    if (!w->is_host()) return w->run();
    pthread_mutex_unlock(&lock); /* a callback may wait for a thread that waits for us */
    w->run();
    pthread_mutex_lock(&lock);
}
static void run_head(cudaStream_t s) {
    item i = s->queue.front();
    s->queue.pop_front();
    if (i.work) run_work(i.work.get());
    if (i.sets) *i.sets = true;
}
/* Runs one piece of work that may run; false: there is none. */
static bool step() {
    std::vector<cudaStream_t> can;
    bool waiting = false;
    for (cudaStream_t s : streams) {
        if (s->queue.empty()) continue;
        if (!s->queue.front().needs || *s->queue.front().needs) can.push_back(s);
        else waiting = true;
    }
    if (can.empty()) {
        if (waiting) emu_report(nullptr, 0, "streams: all work waits for events that nobody will record");
        return false;
    }
    emu_order o = emu_config().order;
    run_head(can[o == ORDER_FORWARD ? 0 : o == ORDER_REVERSE ? can.size() - 1 : choice.below((uint32_t)can.size())]);
    return true;
}
static void drain(cudaStream_t s) {
    while (!s->queue.empty() && step()) {}
}
static void drain_all(bool blocking_only) {
    for (size_t i = 0; i < streams.size(); i++)
        if (!blocking_only || streams[i]->blocking) drain(streams[i]);
}

static bool is_capturing(cudaStream_t s) { return s && s->to; }
static bool any_capture() {
    for (cudaStream_t s : streams)
        if (s->to) return true;
    return false;
}
/* For calls that a capture does not allow. */
static bool refuse_capture(cudaStream_t s, const char *what) {
    bool bad = s ? is_capturing(s) : any_capture();
    if (bad) emu_report(nullptr, 0, "%s while a stream is captured", what), fail(cudaErrorStreamCaptureUnsupported);
    return bad;
}
static void add_node(cudaStream_t s, work_ref w) {
    s->to->nodes->push_back(node{w, s->at});
    s->at.assign(1, (int)s->to->nodes->size() - 1);
}
static cudaError_t submit(cudaStream_t s, work_ref w) {
    if (is_capturing(s)) return add_node(s, w), cudaSuccess;
    if (!s) {
        if (refuse_capture(nullptr, "work in the NULL stream")) return cudaErrorStreamCaptureUnsupported;
        drain_all(true);
        run_work(w.get());
    } else {
        s->queue.push_back(item{w, nullptr, nullptr});
        if (!emu_config().lazy_streams) drain(s);
    }
    return cudaSuccess;
}

/* Kernels. */
namespace {
struct kernel_work : emu_work {
    std::unique_ptr<qn_emu_call> call;
    emu_launch l;
    void run() override {
        emu_launch now = l; /* graphs run it again */
        if (!emu_run(&now)) last_error = cudaErrorLaunchFailure;
    }
};
}
static bool launch_fits(const emu_launch &l) {
    uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z;
    auto most = allowed.find(l.kernel);
    size_t bytes_max = most == allowed.end() ? (size_t)EMU_SHARED_STATIC : most->second;
    if (threads == 0 || threads > EMU_THREADS_MAX || l.block.z > 64)
        emu_report(nullptr, 0, "kernel %s: a block of %ux%ux%u threads", l.name, l.block.x, l.block.y, l.block.z);
    else if (l.grid.x == 0 || l.grid.x > 0x7fffffffu || l.grid.y - 1u > 65534u || l.grid.z - 1u > 65534u)
        emu_report(nullptr, 0, "kernel %s: a grid of %ux%ux%u blocks", l.name, l.grid.x, l.grid.y, l.grid.z);
    else if (l.dynamic > bytes_max) emu_report(nullptr, 0, "kernel %s: %zu bytes of dynamic shared memory, %zu are allowed", l.name, l.dynamic, bytes_max);
    else return true;
    return false;
}
extern "C" void qn_emu_submit(qn_emu_call *call, const void *kernel, const char *name, const dim3 *grid, const dim3 *block, size_t bytes, cudaStream_t s) {
    auto w = std::make_shared<kernel_work>();
    w->call.reset(call);
    w->l = emu_launch{call, kernel, name, *grid, *block, bytes, 0, 0};
    locked hold;
    if (launch_fits(w->l)) submit(s, w);
    else fail(cudaErrorInvalidConfiguration);
}
extern "C" int qn_emu_allow_shared(const void *kernel, size_t bytes) { return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) ? -1 : 0; }
extern "C" cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute what, int v) {
    locked hold;
    if (what != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (v < 0 || v > EMU_SHARED_MOST) return fail(cudaErrorInvalidValue);
    allowed[kernel] = (size_t)v;
    return cudaSuccess;
}

/* Copies. */
namespace {
struct copy_work : emu_work {
    void *to;
    const void *from;
    size_t bytes;
    std::vector<unsigned char> staged; /* of pageable host memory, which the card's driver copies at the call */
    void run() override {
        const void *src = staged.empty() ? from : staged.data();
        memmove(to, src, bytes);
        emu_shadow_copied(to, from, bytes);
    }
};
struct set_work : emu_work {
    void *to;
    int v;
    size_t bytes;
    void run() override {
        memset(to, v, bytes);
        emu_shadow_written(to, bytes);
    }
};
struct host_work : emu_work {
    cudaHostFn_t fn;
    void *arg;
    void run() override { fn(arg); }
    bool is_host() const override { return true; }
};
}
/* Whether p may be the device (or host) end of a copy of so many bytes. */
static bool end_fits(const void *p, size_t bytes, bool device, const char *which) {
    size_t room;
    char text[200];
    emu_place place = emu_where(p, &room);
    bool is_device = place == PLACE_DEVICE || place == PLACE_DEVICE_GAP;
    if (is_device != device) emu_report(nullptr, 0, "copy or memset: the %s %p is %s memory", which, p, is_device ? "device" : "host");
    else if (place != PLACE_HOST && room < bytes) emu_report(nullptr, 0, "copy or memset of %zu bytes, but the %s is %s", bytes, which, is_device ? emu_describe(p, text, sizeof text) : "a shorter piece of pinned memory");
    else return true;
    return false;
}
static bool on_device(const void *p) { return emu_in_device_range(p); }
static cudaError_t copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s) {
    bool to_device = kind == cudaMemcpyDefault ? on_device(to) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDefault ? on_device(from) : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    size_t room;
    if (bytes == 0) return cudaSuccess;
    if (!end_fits(to, bytes, to_device, "target") || !end_fits(from, bytes, from_device, "source")) return fail(cudaErrorInvalidValue);
    auto w = std::make_shared<copy_work>();
    w->to = to, w->from = from, w->bytes = bytes;
    bool pageable = (!to_device && emu_where(to, &room) == PLACE_HOST) || (!from_device && emu_where(from, &room) == PLACE_HOST);
    if (pageable && is_capturing(s)) return refuse_capture(s, "a copy with pageable host memory"), cudaErrorStreamCaptureUnsupported;
    if (pageable && !from_device) w->staged.assign((const unsigned char *)from, (const unsigned char *)from + bytes);
    cudaError_t e = submit(s, w);
    if (pageable && !to_device && s) drain(s); /* to pageable memory: done when the call returns */
    return e;
}
extern "C" cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s) {
    locked hold;
    return copy(to, from, bytes, kind, s);
}
extern "C" cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    locked hold;
    return copy(to, from, bytes, kind, nullptr);
}
extern "C" cudaError_t cudaMemsetAsync(void *to, int v, size_t bytes, cudaStream_t s) {
    locked hold;
    if (bytes == 0) return cudaSuccess;
    if (!end_fits(to, bytes, true, "target")) return fail(cudaErrorInvalidValue);
    auto w = std::make_shared<set_work>();
    w->to = to, w->v = v, w->bytes = bytes;
    return submit(s, w);
}
extern "C" cudaError_t cudaMemset(void *to, int v, size_t bytes) { return cudaMemsetAsync(to, v, bytes, nullptr); }
extern "C" cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg) {
    locked hold;
    auto w = std::make_shared<host_work>();
    w->fn = fn, w->arg = arg;
    return submit(s, w);
}

/* Streams. */
extern "C" cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
    locked hold;
    *s = new CUstream_st;
    (*s)->blocking = !(flags & cudaStreamNonBlocking);
    streams.push_back(*s);
    if (streams.size() == 1) choice.seed(emu_config().seed + 1);
    return cudaSuccess;
}
extern "C" cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
extern "C" cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
extern "C" cudaError_t cudaStreamDestroy(cudaStream_t s) {
    locked hold;
    if (!s || refuse_capture(s, "cudaStreamDestroy")) return fail(cudaErrorInvalidResourceHandle);
    drain(s);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == s) streams.erase(streams.begin() + (long)i), i--;
    delete s;
    return cudaSuccess;
}
extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    locked hold;
    if (refuse_capture(s, "cudaStreamSynchronize")) return cudaErrorStreamCaptureUnsupported;
    if (s) drain(s);
    else drain_all(true);
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
extern "C" cudaError_t cudaStreamQuery(cudaStream_t s) {
    locked hold;
    if (refuse_capture(s, "cudaStreamQuery")) return cudaErrorStreamCaptureUnsupported;
    if (!s) return drain_all(true), cudaSuccess;
    if (!s->queue.empty()) step();
    return s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
extern "C" cudaError_t cudaDeviceSynchronize(void) {
    locked hold;
    if (refuse_capture(nullptr, "cudaDeviceSynchronize, cudaFree or cudaFreeHost")) return cudaErrorStreamCaptureUnsupported;
    drain_all(false);
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
extern "C" cudaError_t cudaDeviceReset(void) { return cudaDeviceSynchronize(); }

/* Events. */
extern "C" cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return *e = new CUevent_st, cudaSuccess; }
extern "C" cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
extern "C" cudaError_t cudaEventDestroy(cudaEvent_t e) {
    locked hold;
    delete e;
    return cudaSuccess;
}
extern "C" cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    locked hold;
    e->flag = nullptr, e->from = nullptr;
    if (is_capturing(s)) {
        e->from = s->to, e->at = s->at;
        return cudaSuccess;
    }
    e->flag = std::make_shared<bool>(!s);
    if (!s) return drain_all(true), cudaSuccess;
    s->queue.push_back(item{nullptr, e->flag, nullptr});
    if (!emu_config().lazy_streams) drain(s);
    return cudaSuccess;
}
static bool happened(cudaEvent_t e) { return !e->flag || *e->flag; }
extern "C" cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    locked hold;
    if (e->from) return emu_report(nullptr, 0, "cudaEventSynchronize of an event recorded in a capture"), fail(cudaErrorStreamCaptureUnsupported);
    while (!happened(e) && step()) {}
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
extern "C" cudaError_t cudaEventQuery(cudaEvent_t e) {
    locked hold;
    if (e->from) return emu_report(nullptr, 0, "cudaEventQuery of an event recorded in a capture"), fail(cudaErrorStreamCaptureUnsupported);
    if (!happened(e)) step();
    return happened(e) ? cudaSuccess : cudaErrorNotReady;
}
extern "C" cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) { return *ms = 0.0f, cudaSuccess; }
extern "C" cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    locked hold;
    if (e->from && e->from->ended) return emu_report(nullptr, 0, "a wait for an event that was recorded in a capture, which has ended"), fail(cudaErrorInvalidValue);
    if (is_capturing(s) && (!e->from || e->from != s->to)) {
        if (!e->from && !e->flag) return cudaSuccess; /* never recorded */
        emu_report(nullptr, 0, "a captured stream waits for an event from outside its capture");
        return fail(cudaErrorStreamCaptureInvalidated);
    }
    if (e->from && s) { /* joins the capture, or waits within it */
        if (!s->to) s->to = e->from, s->at.clear();
        s->at.insert(s->at.end(), e->at.begin(), e->at.end());
        return cudaSuccess;
    }
    if (!s) {
        while (!happened(e) && step()) {}
    } else if (e->flag) {
        s->queue.push_back(item{nullptr, nullptr, e->flag});
        if (!emu_config().lazy_streams) drain(s);
    }
    return cudaSuccess;
}

/* Graphs. */
extern "C" cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode) {
    locked hold;
    if (!s || is_capturing(s)) return emu_report(nullptr, 0, "cudaStreamBeginCapture: the NULL stream, or captured already"), fail(cudaErrorStreamCaptureUnsupported);
    s->to = std::make_shared<capture>();
    s->to->nodes = std::make_shared<node_list>();
    s->to->origin = s, s->to->ended = false;
    s->at.clear();
    return cudaSuccess;
}
/* Whether the stream ends after every node. */
static bool all_joined(const node_list &nodes, const std::vector<int> &at) {
    std::vector<char> seen(nodes.size());
    std::vector<int> left = at;
    while (!left.empty()) {
        int i = left.back();
        left.pop_back();
        if (seen[(size_t)i]) continue;
        seen[(size_t)i] = 1;
        left.insert(left.end(), nodes[(size_t)i].after.begin(), nodes[(size_t)i].after.end());
    }
    for (char c : seen)
        if (!c) return false;
    return true;
}
extern "C" cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    locked hold;
    *g = nullptr;
    if (!is_capturing(s) || s->to->origin != s) return emu_report(nullptr, 0, "cudaStreamEndCapture: this stream began none"), fail(cudaErrorStreamCaptureInvalidated);
    std::shared_ptr<capture> c = s->to;
    bool joined = all_joined(*c->nodes, s->at);
    c->ended = true;
    for (cudaStream_t t : streams)
        if (t->to == c) t->to = nullptr, t->at.clear();
    if (!joined) return emu_report(nullptr, 0, "cudaStreamEndCapture: work of another stream was not joined"), fail(cudaErrorStreamCaptureInvalidated);
    *g = new CUgraph_st{c->nodes};
    return cudaSuccess;
}
extern "C" cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) { return *x = new CUgraphExec_st{g->nodes}, cudaSuccess; }
extern "C" cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
extern "C" cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { return delete x, cudaSuccess; }
extern "C" cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

namespace {
struct graph_work : emu_work {
    std::shared_ptr<node_list> nodes;
    /* Nodes in the order of their capture, or in any order that their edges allow. */
    void run() override {
        size_t n = nodes->size();
        std::vector<char> done(n);
        for (size_t left = n; left; left--) {
            std::vector<size_t> can;
            for (size_t i = 0; i < n; i++) {
                bool free = !done[i];
                for (int a : (*nodes)[i].after) free = free && done[(size_t)a];
                if (free) can.push_back(i);
                if (free && !emu_config().lazy_streams) break;
            }
            size_t i = can[emu_config().lazy_streams ? choice.below((uint32_t)can.size()) : 0];
            run_work((*nodes)[i].work.get());
            done[i] = 1;
        }
    }
};
}
extern "C" cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    locked hold;
    auto w = std::make_shared<graph_work>();
    w->nodes = x->nodes;
    return submit(s, w);
}

/* The card. */
extern "C" cudaError_t cudaGetLastError(void) {
    locked hold;
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
extern "C" cudaError_t cudaPeekAtLastError(void) { return last_error; }
