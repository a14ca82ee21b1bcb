"""Why some settings of both tools have no place in a study file."""

from __future__ import annotations

from hpsearch.convert.file import Reasons

_KEYS_BY_REASON = {
    "rows are not packed together: a batch has as many rows as batch_size says, and so fewer tokens": """
        *packing* packed_* max_packed_* pad_to_* group_by_length batch_flattening batching_*""",
    "hpsearch keeps logs, checkpoints and results in folders of its own": """
        output_dir run_name logging_* save_* saves_* report_to wandb_* use_wandb *swanlab* trackio_* *mlflow* *otel*
        hub_* push_* overwrite_output_dir plot_loss *resume_from_checkpoint* *tensorboard* include_* project_name""",
    "hpsearch validates on a split of its own, budget.reports times; the pruner stops what loses": """
        eval_* evals_* evaluation_strategy do_eval do_*_eval test_datasets *best_model* predict_with_generate
        compute_accuracy early_stopping_* *generat*""",
    "hpsearch prepares and shuffles the data in its own way": """
        preprocessing_* dataset_p* dataset_num_* dataset_keep_* dataloader_* overwrite_cache tokenized_path
        *streaming* buffer_size shuffle_* skip_prepare_dataset remove_unused_columns curriculum_sampling strict
        hf_use_auth_token accelerator_config total_num_tokens min_sample_len mix_strategy interleave_probs""",
    "hpsearch always leaves out rows that occur twice": "*dedup*",
    "a trial runs on one GPU, whole; more GPUs run more trials": """
        deepspeed fsdp* ddp* *parallel* ray_* use_ray dist_* dp_* cp_* mp_* local_rank device_map init_config
        world_size *distributed* overlap_* low_cpu_mem_usage activation_offloading layer_offloading
        gpu_memory_limit max_memory experimental_skip_move_to_device""",
    "the loss is cross-entropy on the answers, and on nothing else": """
        use_dft_loss *asft* *eaft* neftune* moe_aux_loss_coef train_on_* mask_history""",
    "hpsearch's optimizers and schedules have their usual settings": """
        *galore* *apollo* *badam* use_adam_mini use_muon optim_* adam_* *lisa* lr_* cosine_* eta_min *jagged*
        embedding_lr* torchdistx_path""",
    "the adapter is plain LoRA on linear layers, and nothing else is trained": """
        use_dora *pissa* *loraplus* oft_* lora_target_parameters lora_modules_to_save peft* additional_target
        *fan_in_fan_out lora_*_pattern *relora* unfrozen_parameters use_llama_pro freeze_* module_dropout
        create_new_adapter lora_on_cpu qlora_sharded_*""",
    "it changes speed or memory, not what is learned": """
        *liger* *kernel* use_unsloth* tf32 *compile* flash_* *flex_attn* plugins kt_* use_kt *chunked* tiled_*
        gradient_checkpointing_kwargs use_reentrant_gc *scattermoe use_sonicmoe *fus* *apply_rope* recompute_* moe_*
        *experts* gc_* upcast_* cut_cross_entropy *_attn_impl* torch_empty_cache_steps sdpa_varlen""",
    "hpsearch takes the chat template, the tokenizer and its special tokens as the model brings them": """
        *template* tokenizer* special_tokens tokens eot_tokens add_*tokens use_fast_tokenizer resize_* tool_format
        enable_thinking preserve_thinking *special_token* *tokens_overrides processor_kwargs fix_untrained_tokens""",
    "hpsearch loads the model as it is, in 16 bit or in 4-bit nf4": """
        rope_scaling shift_attn mixture_of_depths qat *fp8* model_type model_class *model_config *_derived_model
        model_quantization_config* llmcompressor scaling_softmax* reinit_weights use_onebitllms base_model_*
        double_quantization quantization_* bnb_config_kwargs gptq* torch_dtype mixed_precision""",
    "hpsearch has texts and images, no video and no sound": "video_* audio_* use_audio_in_video",
    "the model's own image processor decides": "image_min_pixels image_do_* crop_to_patches image_resize*",
    "a trial whose loss diverges is pruned anyway": "loss_watchdog_*",
    "it is about inference, not training": "sample_* max_new_tokens infer_* vllm* sglang* temperature",
}

COMMON: Reasons = tuple((tuple(keys.split()), why) for why, keys in _KEYS_BY_REASON.items())
