# The CUDA part of the Makefile, which includes this: the backend over the emulator (always built with the tests; no card, no toolkit), the
# plug-in for cards (CUDA=1), the tests of either, planted bugs. PTX for the interpreter: tests/cuda/ptx/rules.mk.

# ---- over the emulator ----

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
CHECKED_NOT := tests/cuda/test_ptx_%.c tests/cuda/test_sample_many.c tests/cuda/test_backend.c tests/cuda/test_serve.c tests/cuda/test_pipeline.c
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

# Names PTX_OBJS, which is in every test program.
include tests/cuda/ptx/rules.mk
$(B)/tests/cuda/%.o: ALL_CFLAGS += -DQN_CUDA_EMU
$(patsubst tests/%.c,$(B)/tests/%,$(CUDA_TEST_C)): $(B)/tests/cuda/%: $(B)/tests/cuda/%.o $(EMU_TEST_OBJS) $(PTX_OBJS) $(B)/libquern-cuda-emu.a $(B)/tests/run.o $(B)/libtest.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -rdynamic -o $@ $< $(EMU_TEST_OBJS) $(PTX_OBJS) $(B)/tests/run.o $(B)/libtest.a $(B)/libquern-cuda-emu.a $(LIBS) $(PKG_LIBS) -lstdc++ -lm -ldl
$(B)/tests/cuda/bench_cuda: $(B)/tests/cuda/bench_cuda.o $(B)/libquern-cuda-emu.a $(LIBS)
	@echo "  ld $@"
	@$(LINK) -o $@ $< $(B)/libquern-cuda-emu.a $(LIBS) -lstdc++ -lm -ldl

# ---- planted bugs ----

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

# ---- for cards ----

ifeq ($(CUDA),1)
all: $(B)/quern-cuda.so
endif

# The plug-in for NVIDIA cards (engine/device.h): kernels by nvcc for each architecture and as PTX for later ones, host code by cc,
# the runtime inside, one symbol to the outside. -fmad=false: as -ffp-contract=off in the Makefile, and for the same reason.
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

.PHONY: gpu-check
gpu-check: ## for whoever has a card: tests and figures on it, one report to send (GPU=n; scripts/gpu-check.sh)
	@scripts/gpu-check.sh
