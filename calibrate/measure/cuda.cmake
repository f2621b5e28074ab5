# moecal: device code by nvcc for each architecture, host code by the C compiler. CMake's CUDA language is not
# enabled: a machine without nvcc must configure the project all the same.
#
# Sets MOECAL_CUDA_VERSION, or leaves it empty and says why in MOECAL_CUDA_REASON.
set(MOECAL_CUDA_ARCHITECTURES "80;90;100" CACHE STRING
    "compute capabilities that moecal is compiled for; the last one as PTX too")

execute_process(COMMAND ${MOECAL_NVCC} --version OUTPUT_VARIABLE nvcc_says ERROR_QUIET)
string(REGEX MATCH "release ([0-9.]+)" _ "${nvcc_says}")
set(nvcc_version "${CMAKE_MATCH_1}")
get_filename_component(nvcc_real ${MOECAL_NVCC} REALPATH)
get_filename_component(cuda_root ${nvcc_real} DIRECTORY)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
set(cuda_hints ${cuda_root} ${cuda_root}/targets/x86_64-linux ${cuda_root}/targets/sbsa-linux /usr/local/cuda
    ENV CUDA_HOME ENV NCCL_HOME)

find_path(MOECAL_CUDA_INCLUDE cuda_runtime_api.h HINTS ${cuda_hints} PATH_SUFFIXES include)
find_path(MOECAL_CUBLAS_INCLUDE cublasLt.h HINTS ${cuda_hints} PATH_SUFFIXES include)
find_path(MOECAL_NCCL_INCLUDE nccl.h HINTS ${cuda_hints} PATH_SUFFIXES include)
find_path(MOECAL_NVML_INCLUDE nvml.h HINTS ${cuda_hints} PATH_SUFFIXES include) # clocks, power; may be missing
foreach(name cudart_static cublas cublasLt nccl)
  find_library(MOECAL_${name}_LIBRARY ${name} HINTS ${cuda_hints} PATH_SUFFIXES lib64 lib)
endforeach()

set(MOECAL_CUDA_REASON "")
foreach(needed MOECAL_CUDA_INCLUDE MOECAL_CUBLAS_INCLUDE MOECAL_NCCL_INCLUDE MOECAL_cudart_static_LIBRARY
        MOECAL_cublas_LIBRARY MOECAL_cublasLt_LIBRARY MOECAL_nccl_LIBRARY)
  if(NOT ${needed})
    set(MOECAL_CUDA_REASON "nvcc is there, but ${needed} was not found")
  endif()
endforeach()
if(nvcc_version VERSION_LESS 12.5) # cublasGemmGroupedBatchedEx
  set(MOECAL_CUDA_REASON "nvcc ${nvcc_version} is older than 12.5")
endif()
if(MOECAL_CUDA_REASON)
  return()
endif()

set(gencode "")
set(last_architecture "")
foreach(architecture ${MOECAL_CUDA_ARCHITECTURES})
  list(APPEND gencode -gencode arch=compute_${architecture},code=sm_${architecture})
  set(last_architecture ${architecture})
endforeach()
list(APPEND gencode -gencode arch=compute_${last_architecture},code=compute_${last_architecture})
set(nvcc_warnings -Xcompiler=-Wall,-Wextra,-Wshadow)
if(MOEPLAN_WERROR)
  list(APPEND nvcc_warnings -Xcompiler=-Werror -Werror all-warnings)
endif()

set(kernels ${CMAKE_CURRENT_BINARY_DIR}/cuda_kernels.o)
add_custom_command(
  OUTPUT ${kernels}
  COMMAND ${MOECAL_NVCC} -std=c++17 -O3 --threads 2 ${gencode} ${nvcc_warnings} -Xcompiler=-fPIC
          -I${CMAKE_SOURCE_DIR} -MD -MF ${kernels}.d -c ${CMAKE_CURRENT_SOURCE_DIR}/cuda_kernels.cu -o ${kernels}
  DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda_kernels.cu ${CMAKE_CURRENT_SOURCE_DIR}/cuda_kernels.h
  COMMENT "nvcc cuda_kernels.cu (${MOECAL_CUDA_ARCHITECTURES})" VERBATIM)

# Where processes meet needs no device: a library, so that its test links it alone.
add_library(moecal_cuda_host OBJECT
  cuda_attention.c cuda_backend.c cuda_describe.c cuda_exchange.c cuda_experts.c cuda_gemm.c cuda_host.c cuda_layers.c
  cuda_memory.c cuda_nvml.c cuda_overlap.c cuda_world.c)
target_link_libraries(moecal_cuda_host PUBLIC moecal_core)
target_include_directories(moecal_cuda_host SYSTEM PRIVATE ${MOECAL_CUDA_INCLUDE} ${MOECAL_CUBLAS_INCLUDE}
                           ${MOECAL_NCCL_INCLUDE})
if(MOECAL_NVML_INCLUDE)
  target_include_directories(moecal_cuda_host SYSTEM PRIVATE ${MOECAL_NVML_INCLUDE})
  target_compile_definitions(moecal_cuda_host PRIVATE MOECAL_HAVE_NVML)
endif()

moecal_program(moecal ${kernels})
set_target_properties(moecal PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(moecal PRIVATE moecal_cuda_host moecal_rendezvous ${MOECAL_cublas_LIBRARY}
                      ${MOECAL_cublasLt_LIBRARY} ${MOECAL_nccl_LIBRARY} ${MOECAL_cudart_static_LIBRARY}
                      Threads::Threads ${CMAKE_DL_LIBS} rt)
get_filename_component(cublas_folder ${MOECAL_cublas_LIBRARY} DIRECTORY)
set_target_properties(moecal PROPERTIES BUILD_RPATH ${cublas_folder})

set(MOECAL_CUDA_VERSION ${nvcc_version})
