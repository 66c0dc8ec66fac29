# The PTX interpreter (layer L3) and the PTX that it reads. The interpreter goes into every program of tests/cuda, where it does nothing
# unless QN_PTX names a folder (hook.c). PTX needs nvcc: scripts/deps-cuda.sh finds or fetches it; without one the tests skip.
PTX_C := $(wildcard tests/cuda/ptx/*.c)
PTX_OBJS := $(patsubst %.c,$(B)/%.o,$(PTX_C))
PTX_ISA := -march=native
$(PTX_OBJS): ALL_CFLAGS += $(KERNEL_OPT_$(V)) $(PTX_ISA)

PTX_NVCC := $(shell scripts/deps-cuda.sh --have 2>/dev/null)
PTX_ARCHS := sm_80 sm_100
PTX_FLAGS := -std=c++17 -O3 -fmad=false -I. -Werror all-warnings # as the plug-in is built
PTX_CU := $(wildcard engine/cuda/*.cu) $(wildcard tests/cuda/ptx/*.cu)
PTX_FILES := $(foreach arch,$(PTX_ARCHS),$(foreach f,$(PTX_CU),build/ptx/$(arch)/$(notdir $(f:.cu=.ptx))))

.PHONY: ptx
ptx: $(if $(PTX_NVCC),$(PTX_FILES)) ## the kernels as PTX, for the interpreter (needs nvcc 13)
tests: $(if $(PTX_NVCC),$(PTX_FILES))
define PTX_RULES
build/ptx/$(1)/%.ptx: engine/cuda/%.cu
	@mkdir -p $$(@D)
	@echo "  ptx $$< $(1)"
	@$$(PTX_NVCC) $$(PTX_FLAGS) -arch=$(1) -ptx -lineinfo -MD -MF $$(@:.ptx=.d) -o $$@ $$<
build/ptx/$(1)/%.ptx: tests/cuda/ptx/%.cu
	@mkdir -p $$(@D)
	@echo "  ptx $$< $(1)"
	@$$(PTX_NVCC) $$(PTX_FLAGS) -arch=$(1) -ptx -lineinfo -MD -MF $$(@:.ptx=.d) -o $$@ $$<
endef
$(foreach arch,$(PTX_ARCHS),$(eval $(call PTX_RULES,$(arch))))
-include $(wildcard build/ptx/*/*.d)
