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

.PHONY: all libs help run deps test unit asan ubsan tsan fuzz fuzzers golden bench format lint install clean tests benches
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/quernd $(B)/quern ## build the daemon (build/release/quernd) and the command beside it

help: ## this list
	@awk -F':.*## ' '/^[a-z_-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile engine/cuda/cuda.mk tests/cuda/ptx/rules.mk
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

include engine/cuda/cuda.mk

# libquern-server.a defines functions that libmicrohttpd must find in the executable (server/mhd_errors.c), hence
# -rdynamic and --whole-archive for it.
$(B)/quernd: $(B)/server/main.o $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< -Wl,--whole-archive $(B)/libquern-server.a -Wl,--no-whole-archive $(B)/libquern-api.a $(B)/libquern-engine.a $(PKG_LIBS) -lm -ldl

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
