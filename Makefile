# Quern. `make help` lists the targets. Everything that is built lies under build/; V picks the variant
# (release, asan, ubsan, tsan, lint), each in a folder of its own.

V ?= release
B := build/$(V)
T ?=
F ?=
MODEL ?= smollm2-135m-instruct-q4_1
prefix ?= /usr/local
CC ?= cc
CXX ?= g++
CUDA ?= 0
NVCC ?= $(or $(shell command -v nvcc),/usr/local/cuda/bin/nvcc)
VERSION := 0.1.0

PKGS := libmicrohttpd libuv jansson openssl yaml-0.1
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS))

# -ffp-contract=off: a product and a sum are fused where the source says fma and nowhere else, or the same row would be
# summed differently by two kernels (ARCHITECTURE.md, batch-invariance).
WARN := -Wall -Wextra -Wshadow -Wvla -Walloca -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef
STRICT := -Wconversion -Wsign-conversion
BASE := -std=c17 -D_GNU_SOURCE -DQN_VERSION='"$(VERSION)"' -I. -g -fno-math-errno -ffp-contract=off -fno-strict-aliasing \
        -fstack-protector-strong -fPIE -pthread -MMD -MP
OPT_release := -O2 -D_FORTIFY_SOURCE=2
OPT_lint := -O2 -D_FORTIFY_SOURCE=2 -Werror
KERNEL_OPT_release := -O3
KERNEL_OPT_lint := -O3
OPT_asan := -O1 -fsanitize=address -fno-omit-frame-pointer -DQN_FEW_KERNELS
OPT_ubsan := -O1 -fsanitize=undefined -fno-sanitize-recover=all -DQN_FEW_KERNELS
OPT_tsan := -O1 -fsanitize=thread -DQN_FEW_KERNELS
CFLAGS ?=
ALL_CFLAGS = $(BASE) $(WARN) $(OPT_$(V)) $(CFLAGS)
LINK = $(CC) -pie -Wl,-z,relro,-z,now -pthread $(OPT_$(V)) $(LDFLAGS)

ENGINE_C := $(filter-out %_fuzz.c,$(wildcard engine/base/*.c engine/*.c engine/grammar/*.c engine/cpu/*.c))
API_C := $(filter-out %_fuzz.c,$(wildcard api/*.c))
SERVER_C := $(filter-out %_fuzz.c server/main.c server/cli%.c,$(wildcard server/*.c))
CLI_C := $(wildcard server/cli*.c)
TEST_C := $(wildcard tests/unit/test_*.c tests/kernels/test_*.c tests/sim/test_*.c tests/golden/test_*.c tests/faults/test_*.c)
TEST_LIB_C := $(wildcard tests/lib/*.c)
CUDA_TEST_C := $(wildcard tests/cuda/test_*.c)
FUZZ_C := $(wildcard engine/*_fuzz.c engine/grammar/*_fuzz.c engine/base/*_fuzz.c api/*_fuzz.c server/*_fuzz.c)
BENCH_C := $(wildcard tests/bench/*.c)
TOOL_C := $(wildcard tests/tools/*.c)

obj = $(patsubst %.c,$(B)/%.o,$(1))
LIBS := $(B)/libquern-server.a $(B)/libquern-api.a $(B)/libquern-engine.a
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_C) $(CUDA_TEST_C))
FUZZERS := $(patsubst %_fuzz.c,$(B)/fuzz/%,$(FUZZ_C))
TOOLS := $(patsubst tests/%.c,$(B)/tests/%,$(TOOL_C))
BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(BENCH_C))

.PHONY: all libs help run deps test unit asan ubsan tsan fuzz fuzzers golden bench format lint install clean tests benches gpu-check
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/quernd $(B)/quern ## build the daemon (build/release/quernd) and the command beside it

ifeq ($(CUDA),1)
all: $(B)/quern-cuda.so
endif

help: ## this list
	@awk -F':.*## ' '/^[a-z_-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  T=prefix picks tests, V=asan|ubsan|tsan a variant, F=name a fuzzer, MODEL=name|path|url a model,"
	@echo "  CUDA=1 builds the plug-in for NVIDIA cards too (build/release/quern-cuda.so; needs nvcc 13)"

run: ## install what is missing, fetch the default model, build, serve on 127.0.0.1:8080
	@scripts/run.sh "$(MODEL)"

deps: ## install the Debian packages that the build needs
	@scripts/deps.sh

test: ## set up what the tests need and run all of them (T=prefix: some)
	@scripts/test.sh "$(V)" "$(T)"

unit: tests ## run the compiled tests only (T=prefix)
	@python3 tests/drive.py --variant $(V) --filter "$(T)" --c-only

asan: ## the same under AddressSanitizer (T=prefix)
	@scripts/test.sh asan "$(T)"
ubsan: ## the same under UndefinedBehaviorSanitizer
	@scripts/test.sh ubsan "$(T)"
tsan: ## the same under ThreadSanitizer
	@scripts/test.sh tsan "$(T)"

fuzz: ## fuzz one parser with libFuzzer: F=gguf (corpus in tests/corpus/gguf)
	@scripts/fuzz.sh "$(F)"

golden: ## rewrite the wanted replies of tests/golden; review the diff
	@$(MAKE) --no-print-directory tests && QN_GOLDEN_WRITE=1 python3 tests/drive.py --variant $(V) --filter golden/ --c-only

bench: ## measure kernels, forward pass and server, PEER=llama beside a peer, BENCH=part,… some of it (docs/performance.md)
	@scripts/bench.sh

gpu-check: ## for whoever has a card: tests and figures on it, one report to send (GPU=n; scripts/gpu-check.sh)
	@scripts/gpu-check.sh

format: ## clang-format over our sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

lint: ## warnings as errors, cppcheck, include arrows, manual pages and unit file
	@scripts/lint.sh

libs: $(LIBS)
tests: $(TESTS) $(TOOLS) $(FUZZERS) $(B)/fake-quernd $(B)/quern-cuda-emu.so $(B)/tests/cuda/bench_cuda
benches: $(BENCHES)
fuzzers: $(FUZZERS)

clean: ## remove build/
	rm -rf build

install: $(B)/quernd $(B)/quern ## install to $(DESTDIR)$(prefix)
	install -D -m 755 $(B)/quernd $(DESTDIR)$(prefix)/bin/quernd
	install -D -m 755 $(B)/quern $(DESTDIR)$(prefix)/bin/quern
	if [ -f $(B)/quern-cuda.so ]; then install -D -m 755 $(B)/quern-cuda.so $(DESTDIR)$(prefix)/lib/quern/quern-cuda.so; fi
	install -D -m 644 conf/quern.yaml $(DESTDIR)$(prefix)/share/doc/quern/quern.yaml
	install -D -m 644 conf/quernd.8 $(DESTDIR)$(prefix)/share/man/man8/quernd.8
	install -D -m 644 conf/quern.yaml.5 $(DESTDIR)$(prefix)/share/man/man5/quern.yaml.5
	install -d $(DESTDIR)$(prefix)/lib/systemd/system
	sed 's,@bindir@,$(prefix)/bin,g' systemd/quernd.service > $(DESTDIR)$(prefix)/lib/systemd/system/quernd.service

# Flags by room: kernels are optimised harder and speak in intrinsics; parsers are held to conversion warnings.
# (Not under sanitizers: -O3 makes their compile time minutes.)
$(B)/engine/cpu/%.o: ALL_CFLAGS += $(KERNEL_OPT_$(V))
$(B)/engine/cpu/%_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(B)/engine/cpu/%_avx512.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mprefer-vector-width=512
$(B)/engine/base/%.o $(call obj,$(filter engine/%.c,$(filter-out engine/cpu/%,$(ENGINE_C)))): ALL_CFLAGS += $(STRICT)
$(call obj,$(API_C) $(SERVER_C) $(CLI_C) server/main.c): ALL_CFLAGS += $(STRICT) $(PKG_CFLAGS)
$(B)/tests/%.o $(B)/fuzz/%.o: ALL_CFLAGS += $(PKG_CFLAGS)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(B)/libquern-engine.a: $(call obj,$(ENGINE_C))
$(B)/libquern-api.a: $(call obj,$(API_C))
$(B)/libquern-server.a: $(call obj,$(SERVER_C))
$(B)/libtest.a: $(call obj,$(TEST_LIB_C))
$(B)/lib%.a:
	@mkdir -p $(@D); rm -f $@; ar rcs $@ $^

# The CUDA backend over the emulator: kernels as host C++, its host code with -DQN_CUDA_EMU, and the emulator, which hosts AVX2, FMA and
# F16C. Everything is position-independent, so that a shared object can hold it. Under tsan none of it is instrumented: fibers change
# stacks, which that sanitizer does not follow.
CUDA_CU := $(wildcard engine/cuda/*.cu)
CUDA_C := $(wildcard engine/cuda/*.c)
EMU_CC := $(wildcard engine/cuda/emu/*.cc)
EMU_TEST_CU := $(wildcard tests/cuda/*.cu)
EMU_SAN = $(filter-out -fsanitize=thread,$(OPT_$(V)))
EMU_ISA := -mavx2 -mfma -mf16c
EMU_CXXFLAGS = -std=c++17 -D_GNU_SOURCE -DQN_CUDA_EMU -I. -g -fno-math-errno -ffp-contract=off -fno-strict-aliasing -fPIC -pthread -MMD -MP \
        -Wall -Wextra -Wshadow -Wundef -Wno-unknown-pragmas -fno-sanitize=vptr $(EMU_SAN) $(EMU_ISA) $(CXXFLAGS)
EMU_OBJS := $(patsubst %.cu,$(B)/emu/%.o,$(CUDA_CU)) $(patsubst %.c,$(B)/emu/%.o,$(CUDA_C)) $(patsubst %.cc,$(B)/emu/%.o,$(EMU_CC))
EMU_TEST_OBJS := $(patsubst %.cu,$(B)/emu/%.o,$(EMU_TEST_CU))
# The checked build: kernels call at every access (engine/cuda/emu/check.cc). The sanitizers' variants have no such set.
CHECKED_FLAGS := -DQN_EMU_CHECKED
CHECKED_TRACE := -fsanitize=thread --param=tsan-instrument-func-entry-exit=0
CHECKED_OBJS := $(patsubst %.cu,$(B)/emu-checked/%.o,$(CUDA_CU)) $(patsubst %.c,$(B)/emu/%.o,$(CUDA_C)) $(patsubst %.cc,$(B)/emu-checked/%.o,$(EMU_CC))
CHECKED_TEST_OBJS := $(patsubst %.cu,$(B)/emu-checked/%.o,$(EMU_TEST_CU))
# No kernels in the first; the others would take minutes.
CHECKED_NOT := tests/cuda/test_ptx_%.c tests/cuda/test_sample_many.c tests/cuda/test_backend.c tests/cuda/test_serve.c
CHECKED_TESTS := $(if $(findstring -fsanitize,$(OPT_$(V))),,$(patsubst tests/cuda/%.c,$(B)/tests/cuda-checked/%,$(filter-out $(CHECKED_NOT),$(CUDA_TEST_C))))

# What a plug-in uses of engine/ it brings along, as the daemon may have been linked without it.
PLUGIN_C := engine/base/err.c engine/quant.c

.PHONY: cuda-emu
cuda-emu: $(B)/libquern-cuda-emu.a $(B)/quern-cuda-emu.so ## build the CUDA backend over the emulator (no card, no toolkit needed)
$(B)/libquern-cuda-emu.a: $(EMU_OBJS)
# Found by tests only: it lies beside the daemon in build/ and is never installed.
$(B)/quern-cuda-emu.so: $(EMU_OBJS) $(patsubst %.c,$(B)/emu/%.o,$(PLUGIN_C)) engine/cuda/plugin.map
	@echo "  ld $@"
	@$(CXX) -shared $(EMU_SAN) -o $@ $(filter %.o,$^) -Wl,-z,relro,-z,now,--version-script=engine/cuda/plugin.map -pthread -lm
$(B)/emu/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  cu $<"
	@$(CXX) $(EMU_CXXFLAGS) -x c++ -c -o $@ $<
$(B)/emu/%.o: %.cc
	@mkdir -p $(@D)
	@echo "  c++ $<"
	@$(CXX) $(EMU_CXXFLAGS) -c -o $@ $<
$(B)/emu/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(ALL_CFLAGS) -fPIC -DQN_CUDA_EMU -c -o $@ $<
$(B)/libquern-cuda-emu-checked.a: $(CHECKED_OBJS)
$(B)/emu-checked/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  cu checked $<"
	@$(CXX) $(EMU_CXXFLAGS) $(CHECKED_FLAGS) $(CHECKED_TRACE) -x c++ -c -o $@ $<
$(B)/emu-checked/%.o: %.cc
	@mkdir -p $(@D)
	@echo "  c++ checked $<"
	@$(CXX) $(EMU_CXXFLAGS) $(CHECKED_FLAGS) -c -o $@ $<
tests: $(CHECKED_TESTS)
$(CHECKED_TESTS): $(B)/tests/cuda-checked/%: $(B)/tests/cuda/%.o $(CHECKED_TEST_OBJS) $(B)/libquern-cuda-emu-checked.a $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@mkdir -p $(@D)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< $(CHECKED_TEST_OBJS) $(B)/tests/run.o $(B)/libtest.a $(B)/libquern-cuda-emu-checked.a $(LIBS) $(PKG_LIBS) -lstdc++ -lm -ldl
include tests/cuda/ptx/rules.mk

cuda-mutants: ## plant bugs in the CUDA kernels and see that the tests find each (minutes)
	@scripts/cuda-mutants.py
# For scripts/cuda-mutants.py: MUTANT_TEST with the objects of MUTANT_SOURCES made anew, headers and sources of folder MUTANT first.
.PHONY: cuda-mutant cuda-mutants
MUTANT_OBJS = $(patsubst %,$(MUTANT)/obj/%.o,$(MUTANT_SOURCES))
MUTANT_FROM = $(firstword $(wildcard $(MUTANT)/$(1)) $(1))
cuda-mutant: $(MUTANT_OBJS) $(B)/tests/cuda/$(MUTANT_TEST).o $(CHECKED_TEST_OBJS) $(B)/libquern-cuda-emu-checked.a $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@$(LINK) -rdynamic -o $(MUTANT)/test $(B)/tests/cuda/$(MUTANT_TEST).o $(MUTANT_OBJS) $(CHECKED_TEST_OBJS) $(B)/tests/run.o $(B)/libtest.a \
	  $(B)/libquern-cuda-emu-checked.a $(LIBS) $(PKG_LIBS) -lstdc++ -lm -ldl
$(MUTANT)/obj/%.cu.o:
	@mkdir -p $(@D)
	@$(CXX) -I$(MUTANT) $(EMU_CXXFLAGS) $(CHECKED_FLAGS) $(CHECKED_TRACE) -x c++ -c -o $@ $(call MUTANT_FROM,$*.cu)
$(MUTANT)/obj/%.c.o:
	@mkdir -p $(@D)
	@$(CC) -I$(MUTANT) $(ALL_CFLAGS) -fPIC -DQN_CUDA_EMU -c -o $@ $(call MUTANT_FROM,$*.c)
$(B)/tests/cuda/%.o: ALL_CFLAGS += -DQN_CUDA_EMU
$(patsubst tests/%.c,$(B)/tests/%,$(CUDA_TEST_C)): $(B)/tests/cuda/%: $(B)/tests/cuda/%.o $(EMU_TEST_OBJS) $(PTX_OBJS) $(B)/libquern-cuda-emu.a $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< $(EMU_TEST_OBJS) $(PTX_OBJS) $(B)/tests/run.o $(B)/libtest.a $(B)/libquern-cuda-emu.a $(LIBS) $(PKG_LIBS) -lstdc++ -lm -ldl
$(B)/tests/cuda/bench_cuda: $(B)/tests/cuda/bench_cuda.o $(B)/libquern-cuda-emu.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -o $@ $< $(B)/libquern-cuda-emu.a $(LIBS) -lstdc++ -lm -ldl

# libquern-server.a defines functions that libmicrohttpd must find in the executable (server/mhd_errors.c), hence
# -rdynamic and --whole-archive for it.
$(B)/quernd: $(B)/server/main.o $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< -Wl,--whole-archive $(B)/libquern-server.a -Wl,--no-whole-archive $(B)/libquern-api.a $(B)/libquern-engine.a $(PKG_LIBS) -lm -ldl

# The plug-in for NVIDIA cards (engine/device.h): kernels by nvcc for each architecture and as PTX for later ones, host code by cc,
# the runtime inside, one symbol to the outside. -fmad=false: as -ffp-contract=off above, and for the same reason.
# Asked of nvcc, which may be a wrapper; once, and only where it is wanted.
CUDA_HOME = $(eval CUDA_HOME := $(shell "$(NVCC)" --dryrun -E -x cu /dev/null 2>&1 | sed -n "s/^\#\$$ TOP=//p"))$(CUDA_HOME)
CUDA_GPUS := 80 90 100 120
CUDA_GEN := $(foreach g,$(CUDA_GPUS),-gencode arch=compute_$(g),code=sm_$(g)) $(foreach g,80 120,-gencode arch=compute_$(g),code=compute_$(g))
CUDA_OBJ := $(patsubst %.c,$(B)/nv/%.o,$(CUDA_C) $(PLUGIN_C)) $(patsubst %.cu,$(B)/nv/%.cu.o,$(CUDA_CU))

.PHONY: toolkit
toolkit:
	@"$(NVCC)" --version 2>/dev/null | grep -q 'release 1[3-9]' || { echo "CUDA=1: no nvcc of CUDA 13 or later in PATH or /usr/local/cuda/bin (NVCC=path says where it is)" >&2; exit 1; }

$(B)/nv/%.o: %.c | toolkit
	@mkdir -p $(@D)
	@echo "  cc $< (cuda)"
	@$(CC) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -fvisibility=hidden -I$(CUDA_HOME)/include -c -o $@ $<

$(B)/nv/%.cu.o: %.cu | toolkit
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	@$(NVCC) -std=c++17 -O3 -fmad=false -I. $(CUDA_GEN) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra -MD -MP -MF $(@:.o=.d) -c -o $@ $<

$(B)/quern-cuda.so: $(CUDA_OBJ) engine/cuda/plugin.map
	@echo "  ld $@"
	@$(CXX) -shared -static-libstdc++ -static-libgcc -o $@ $(filter %.o,$^) -Wl,-z,relro,-z,now,--no-undefined,--version-script=engine/cuda/plugin.map -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl -lpthread -lm

# The tests of tests/cuda and the table of kernels against the real runtime, for `make gpu-check`. What is about the emulator itself stays.
GPU_TEST_C := $(filter-out tests/cuda/test_emu%.c tests/cuda/test_ptx%.c,$(CUDA_TEST_C)) tests/cuda/bench_cuda.c
GPU_TESTS := $(patsubst %.c,$(B)/gpu/%,$(GPU_TEST_C))
.PHONY: gpu-tests
gpu-tests: $(GPU_TESTS)
$(B)/gpu/%.o: %.c | toolkit
	@mkdir -p $(@D)
	@echo "  cc $< (cuda)"
	@$(CC) $(ALL_CFLAGS) -I$(CUDA_HOME)/include -c -o $@ $<
$(GPU_TESTS): $(B)/gpu/%: $(B)/gpu/%.o $(filter-out $(patsubst %.c,$(B)/nv/%.o,$(PLUGIN_C) engine/cuda/plugin.c),$(CUDA_OBJ)) $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $(filter-out $(if $(findstring bench_cuda,$@),$(B)/tests/run.o),$^) $(PKG_LIBS) -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -lrt -ldl -lm

# The whole front end with a scripted api and engine behind it (tests/http, the front end's own cost).
$(B)/quern: $(call obj,$(CLI_C)) $(B)/libquern-engine.a
	@echo "  ld $@"
	@$(LINK) -o $@ $^ -lm

$(B)/fake-quernd: $(B)/server/main.o $(B)/tests/http/fake_api.o $(B)/libquern-server.a $(B)/libquern-engine.a
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $(B)/server/main.o $(B)/tests/http/fake_api.o -Wl,--whole-archive $(B)/libquern-server.a -Wl,--no-whole-archive $(B)/libquern-engine.a $(PKG_LIBS) -lm -ldl

$(B)/tests/%: $(B)/tests/%.o $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< $(B)/tests/run.o $(B)/libtest.a $(LIBS) $(PKG_LIBS) -lm -ldl

$(B)/tests/tools/%: $(B)/tests/tools/%.o $(B)/libtest.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -o $@ $< $(B)/libtest.a $(LIBS) $(PKG_LIBS) -lm -ldl

$(B)/fuzz/%: $(B)/%_fuzz.o $(B)/tests/fuzz/replay.o $(LIBS)
	@mkdir -p $(@D)
	@echo "  ld $@"
	@$(LINK) -o $@ $< $(B)/tests/fuzz/replay.o $(LIBS) $(PKG_LIBS) -lm -ldl
$(B)/%_fuzz.o: ALL_CFLAGS += $(PKG_CFLAGS)

$(B)/bench/%: $(B)/tests/bench/%.o $(B)/libtest.a $(LIBS)
	@mkdir -p $(@D)
	@echo "  ld $@"
	@$(LINK) -o $@ $< $(B)/libtest.a $(LIBS) $(PKG_LIBS) -lm -ldl

-include $(shell find $(B) -name '*.d' 2>/dev/null)
